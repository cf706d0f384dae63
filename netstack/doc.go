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
// So the default is SACK, and CUBIC, which is the faster one on long paths wherever
// packets are lost at random. It should be no slower than Reno where the window is
// small for the round trip (RFC 9438 section 4.3), but gVisor's CUBIC rounds down
// growth of less than a segment for each acknowledgment, and once its window is 2
// segments it may stay there. So a connection whose losses leave at most 64 segments
// of its window, and whose round trip is short enough for that (85 ms for 64
// segments, 150 ms for 27), goes on with Reno; gVisor gives it a new slow start
// then.
// The same benchmark over 10 ms and 200 Mbit/s, SACK, one run each on the quiet
// machine, all of 8 s and its second half:
//
//	                                      cubic        chosen         reno
//	0.5 % random loss                 14.0  12.4    18.1  16.5    17.1  16.4
//	0.05 permille bursts of 10         143   107     140   100     148   115
//	queue of 10 ms, tail drop          190   192     188   192     187   188
//	the same of 50 Mbit/s             46.6  47.9    45.0  47.4    44.9  47.2
//
// The rows were run when the choice was made below 25 ms only, and those of queues
// before it asked for eight lost segments and no recovery. Config.Recovery and Config.Congestion override; measure again
// with each new gVisor (SVC-49).
//
// Between two nodes packets that the path exchanged come in order (WG-99), so
// most of what RACK is for does not reach TCP. One stream through two nodes and
// an impaired link (bench/nodes, rows far*), beside the kernel's CUBIC; single
// rounds of 4 to 5 s after 3 s of warm-up, not all in one run and some with the
// larger buffers below, sent and received by the same end:
//
//	                                   Mbit/s         kernel         ratio
//	66 ms, clean                      395   400      406   389     0.97  1.03
//	66 ms, 20 lost in a row           393   390      414   410     0.95  0.95
//	66 ms, 0.1 % late by 5 ms         400   399      413   421     0.97  0.95
//	  without WG-99 until one was late 48     9      409   420     0.12  0.02
//	10 ms, 0.1 % late by 5 ms        1174  1173     1086  1379     1.08  0.85
//
// Paths that lose, single rounds of 8 to 9 s on the quiet machine, tsnet (Reno)
// beside it. The lines of 66 ms are one run but for Reno; so are those of 10 ms but
// for what is chosen:
//
//	                                        send  receive    of the kernel's
//	10 ms, 0.5 % lost   chosen              17.0   17.1       0.84  0.86
//	                    CUBIC               12.1   13.2       0.60  0.67
//	                    Reno                17.7   15.8       0.87  0.80
//	                    tsnet               16.6   16.0       0.82  0.81
//	                    kernel              20.3   19.8
//	66 ms, 0.1 % lost   CUBIC                5.7    4.9       0.64  0.66
//	                    Reno                 6.3    5.6       0.71  0.75
//	                    tsnet                6.1    5.4       0.70  0.73
//	                    kernel               8.8    7.4
//
// Without WG-99 the row of 10 ms had 11.1 and 11.1 with CUBIC: waiting is not what
// it lacks.
//
// Buffers of 16 and 12 MiB in place of 8 and 6 gave 385 and 397 on the clean
// path: more memory for nothing, there the link itself is the bound. What bounds
// the rows with loss: segments of 1,200 bytes where the kernel's have 1,448, a
// ratio of 0.83 at the same window; a retransmission that is lost again, which
// gVisor's SACK finds out by a timeout of 200 ms at least, the kernel's RACK
// within a round trip. At 66 ms the change to Reno in mid-stream had 9.5 to 13.0
// Mbit/s for 8 s, more than Reno from the start: the new slow start is part of it.
//
// # Idle connections
//
// Every connection probes a peer that is silent for 5 minutes, 4 times 30 s apart:
// what waits for one that has vanished ends after 7 minutes with ETIMEDOUT (RFC 1122
// section 4.2.3.6, where it is off, and no less than 2 hours). Package net probes
// after 15 s already, and the reference after 2 hours, where it has accepted the
// connection. Here each probe costs more than a packet: it has a tunnel that sleeps
// shake hands, and both ends look for paths for as long as they think they talk,
// about 45 s. A connection with a probe in each 60 s would hardly ever let a phone
// sleep, one in 5 minutes does for most of the time. SetKeepAliveConfig overrides.
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
