// Package netcheck finds out what a network lets a node do: whether UDP works,
// what the node's public address looks like, how its NAT maps, whether a
// captive portal is in the way, and how far each relay region is. From its
// recent reports it chooses the home region.
//
// A [Checker] shares the node's UDP sockets: it sends through a function and is
// given what looks like STUN. A [Standalone] has sockets of its own. When
// reports are made, and what follows from them, is left to others.
//
// Source: doc/protocol/netcheck.md (NC-12..NC-63). Browsers (NC-36) are not
// served.
package netcheck
