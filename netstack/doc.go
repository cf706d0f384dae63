// Package netstack is the node's end of the overlay: gVisor's TCP, UDP and ICMP
// on a link endpoint that hands whole batches to the packet pipeline, without a
// goroutine or channel hop per packet.
//
// It owns the stack, its addresses and sockets, and the link queue between TCP
// and the outbound loop. What may pass, and to whom, is decided in dataplane.
// Only this package imports gVisor.
//
// Outbound, TCP writes super-packets (host GSO) that the tunnel cuts; a write
// that meets a full queue waits, which is the only way to stop gVisor's TCP
// (WG-83). Inbound, the tunnel merges segments in memory that this package
// reserves, and they are delivered as one packet; gVisor's own GRO is not used
// (WG-69).
//
// Source: doc/protocol/node-services.md section 6 (SVC-48 to SVC-66) and
// doc/protocol/wireguard.md sections 6 to 9.
package netstack
