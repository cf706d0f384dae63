// Package dataplane is the packet pipeline of a node: from the link of the
// netstack through the packet filter, the overlay routes and the WireGuard
// tunnel to the underlay, and back.
//
// It owns the table of peers and overlay routes made from the network map, the
// current path of each peer, and the answers that are neither the application's
// nor a protocol's of its own: in-tunnel control messages (TSMP) and ICMP
// unreachables. It leaves sockets and relays to the underlay, cryptography to
// dataplane/wireguard, verdicts to packetfilter, and the choice of paths to
// whoever calls SetPath.
//
// One goroutine carries a batch from end to end: outbound the drain of the link
// queue, inbound the reader of a socket or relay connection. What they read is
// published by atomic pointers and never changed afterwards. Per packet there is
// no lock, no allocation and no log line; what cannot go on is dropped and
// counted.
//
// Source: doc/protocol/node-services.md sections 4 and 5 (SVC-32..43),
// doc/protocol/wireguard.md sections 5, 6, 8 and 9, and doc/protocol/paths.md
// sections 6.4 and 12.
package dataplane
