// Package packetfilter decides which packets may enter a node and remembers
// what the node has sent, so that replies may come back.
//
// It owns the compiled form of the tailnet's access rules (Rules, immutable)
// and the flow table (part of Filter), which outlives every change of rules. It
// reads no socket and answers nothing: what to tell the sender of a refused
// packet is left to package dataplane, which gets a Reason.
//
// The rules are those of the control server: they permit, they never deny, and
// their order has no meaning. What no rule permits is dropped, and before the
// first network map everything is. Rules are found by source, then by port or
// destination, so that a decision costs about as much under 100,000 of them as
// under ten; a Verdict says which one permits a packet.
//
// Source: doc/protocol/node-services.md section 3 (SVC-09..31) and
// doc/protocol/control.md section 13.3.
package packetfilter
