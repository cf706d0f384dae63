// Package endpoints finds out where this node can be reached over UDP, and how
// the network around it is: it runs reports of netcheck when they are due, joins
// what they, the port mapper and the host's interfaces tell, and chooses the
// home region.
//
// Probing is left to netcheck, mapping to transport/portmap, telling the control
// server and peers to node. A cloud's metadata service, which some nodes ask for
// their public address, is never contacted: nobody has asked for that, and STUN
// finds the same address.
//
// Source: doc/protocol/paths.md section 4 (PATH-23 to PATH-30) and
// doc/protocol/netcheck.md section 9 (NC-44 to NC-55).
package endpoints
