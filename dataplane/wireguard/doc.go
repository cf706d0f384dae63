// Package wireguard is the WireGuard protocol without sockets: handshakes,
// cookies, sessions, timers, and sealing and opening of packets for all peers of
// a node.
//
// It owns the table of peers and their keys. It leaves to its caller where
// datagrams go and come from, which peer owns an overlay address, and what may
// pass: those are the functions of Config and the methods of Sink.
//
// An Engine has two goroutines at most whatever the number of peers. The actor
// owns sessions, handshakes and timers; the handshake worker, which is there while
// handshakes come, takes what anyone may send, and passes on what is worth the
// actor's time. Packets are sealed and
// opened on the goroutines of the caller, with a Sealer or an Opener of their
// own. They find keypairs through atomic pointers and leave word of what they
// did in atomics of the session; per packet there is no lock and no allocation.
//
// TCP segments that overtake others on their way wait for these, some milliseconds
// at most and only on paths where waiting is of use (WG-99).
//
// Session keys and counters outlive a restart of Serve, so a panic of the actor
// does not disturb a stream in progress. Keys are erased when they are unlinked;
// what the garbage collector has copied is not in our hand.
//
// Source: Jason A. Donenfeld, WireGuard: Next Generation Kernel Network Tunnel
// ("paper"), and doc/protocol/wireguard.md, whose requirements are cited as
// WG-nn.
package wireguard
