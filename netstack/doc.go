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
// Between two nodes packets that the path exchanged come in order (WG-99), so
// most of what RACK is for does not reach TCP. One stream through two nodes and
// an impaired link (bench/nodes, rows far*), beside the kernel's CUBIC; single
// rounds of 4 to 5 s after 3 s of warm-up, sent and received by the same end:
//
//	                                   Mbit/s         kernel         ratio
//	66 ms, clean                      395   400      406   389     0.97  1.03
//	66 ms, 20 lost in a row           393   390      414   410     0.95  0.95
//	66 ms, 0.1 % late by 5 ms         400   399      413   421     0.97  0.95
//	  without WG-99 until one was late 48     9      409   420     0.12  0.02
//	10 ms, 0.1 % late by 5 ms        1174  1173     1086  1379     1.08  0.85
//	66 ms, 0.1 % lost each way        6.8   7.0     10.1   6.8     0.67  1.03
//	10 ms, 0.5 % lost each way       13.7  10.0     20.3  20.6     0.67  0.49
//
// Buffers of 16 and 12 MiB in place of 8 and 6 gave 385 and 397 on the clean
// path: more memory for nothing, there the link itself is the bound. What bounds
// the rows with loss: segments of 1,200 bytes where the kernel's have 1,448, a
// ratio of 0.83 at the same window; a retransmission that is lost again, which
// gVisor's SACK finds out by a timeout of 200 ms at least, the kernel's RACK
// within a round trip; and gVisor's CUBIC, which rounds down growth of less than
// a segment for each acknowledgment. Of the path of 10 ms in process Reno took 15
// to 16 Mbit/s, CUBIC 13 to 16, CUBIC with RACK 11 to 13, the kernel 17; of that
// of 66 ms with loss all took 6.5 to 7 once slow start was over. Reno has no
// HyStart, so it is not the default without a measurement of full queues.
//
// # TIME-WAIT
//
// The end that closes first keeps a connection for a minute, about 10 KiB of
// it. A SYN from the same address and port that is beyond the last sequence
// number opens a new connection at once, as RFC 1122 section 4.2.2.13 allows;
// what is not beyond is an old duplicate and gets no answer. Our own dials take
// ports that are free. At most 1,024 connections wait so; then the oldest ends
// for each new one, without a word (Stats.TCPLingerCut; RFC 9293 section 3.10.5):
// neither ports nor memory run out, whichever end closes first, and the replay
// window of the tunnel keeps old duplicates out anyway.
//
// Source: doc/protocol/node-services.md section 6 (SVC-48 to SVC-66) and
// doc/protocol/wireguard.md sections 6 to 9.
package netstack
