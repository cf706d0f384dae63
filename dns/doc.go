// Package dns resolves names for a node: it answers for the nodes of the tailnet
// and for what its DNS configuration adds, and asks other servers for the rest.
//
// A [Table] is the pure core: compiled from one netmap and immutable, it decides
// what becomes of a question. A [Resolver] is the actor around it. It answers DNS
// messages, from inside the process and on the service addresses inside the
// node's stack, and forwards those that the table does not answer: by UDP and
// TCP, and by HTTPS where that is known to work; through the tunnel where the
// server lives there, else through the host network. There is no cache: the
// tailnet's names are in memory, and the rest is the upstream server's to keep.
//
// It opens no socket on the host but to ask upstream servers. How a peer is
// served over peerAPI is not decided here.
//
// Source: doc/protocol/node-services.md section 7 (SVC-67 to SVC-82), RFC 1035,
// RFC 2308, RFC 6891, RFC 7766 and RFC 8484.
package dns
