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
// (WG-69). Sockets are those of package net in manner and errors. TCP's are
// gVisor's endpoints; UDP's are our own on gVisor's demultiplexer, see [UDPConn].
//
// # Loss detection and congestion control
//
// Measured with BenchmarkWAN on two shared cores, gVisor
// v0.0.0-20260905035102-160fafc42237: one flow of 8 s over a path of 66 ms round
// trip, and 200 Mbit/s where there is loss; Mbit/s, medians of 2 to 6 runs:
//
//	                                    SACK           RACK
//	                                 reno  cubic    reno  cubic
//	no loss (bound by the window)     368    361     374    356
//	queue of 33 ms, tail drop         101     81      14     11
//	0.05 permille bursts of 10         67    106      14     11
//	0.01 % random loss                 37     52      37     52
//	0.1 % random loss                  10     13      10     13
//	1 % late by 2 ms                    4      4       6      7
//	5 % late by 1 ms, 4 ms trip        19     16      27     22
//
// RACK (RFC 8985) as gVisor has it bears reordering better, but falls to a tenth
// once a full queue has dropped many packets at once, where it waits for timeouts.
// So the default is SACK, and CUBIC, which is the faster one wherever packets are
// lost at random. Config.Recovery and Config.Congestion override; measure again
// with each new gVisor (SVC-49).
//
// # TIME-WAIT
//
// The end that closes first keeps a connection for a minute, about 10 KiB of
// it. A SYN from the same address and port that is beyond the last sequence
// number opens a new connection at once, as RFC 1122 section 4.2.2.13 allows;
// what is not beyond is an old duplicate and gets no answer. Our own dials take
// ports that are free. At most 1,024 connections wait so; then the oldest ends
// for each new one (Stats.TCPLingerCut): neither ports nor memory run out,
// whichever end closes first, and the replay window of the tunnel keeps old
// duplicates out anyway.
//
// Source: doc/protocol/node-services.md section 6 (SVC-48 to SVC-66) and
// doc/protocol/wireguard.md sections 6 to 9.
package netstack
