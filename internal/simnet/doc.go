// Package simnet is a simulated internet in memory. Its hosts implement
// host.Network, so everything of a node below the netstack runs on it, in real
// time or on the virtual clock of a testing/synctest bubble, where an hour
// passes in seconds.
//
//	net := simnet.New(1) // the seed
//	defer net.Close()
//	server := net.AddHost("server", simnet.HostConfig{})
//	net.SetName("control.example.com", server.Addrs()...)
//
//	home := net.AddRouter("home", simnet.RouterConfig{
//		NAT:  simnet.Easy,
//		Link: simnet.Conditions{Delay: 10 * time.Millisecond}, // to the Internet
//	})
//	alice := home.AddHost("alice", simnet.HostConfig{}) // 192.168.1.2
//	cafe := net.AddRouter("cafe", simnet.RouterConfig{NAT: simnet.Symmetric})
//	bob := cafe.AddHost("bob", simnet.HostConfig{})     // 192.168.1.2, too
//
//	home.SetLink(simnet.Conditions{NoUDP: true})        // UDP is blocked from now on
//	alice.Move(cafe)                                    // Alice walks over to Bob
//
// Hosts and routers are attached to the Internet or to the inside of a router,
// each by one link with its Conditions; a router inside another is a carrier
// NAT. What crosses links are packets: UDP datagrams, ICMP echoes, and the
// segments of a small TCP, so that address translation, firewalls, loss and
// moves mean the same to all of them.
//
// New starts nothing. No goroutine belongs to the simulation while nothing is
// under way: one timer runs what is due, and packets that no link delays arrive
// before the call that sends them returns. With the same seed and the same order
// of calls the same packets are lost, delayed and translated.
//
// What it leaves out: UPnP, IP fragments as packets of their own (a datagram
// that may be fragmented passes every link whole), ICMP errors, congestion of
// the core.
//
// Sources: RFC 4787 and RFC 5382 for address translation, RFC 6092 for firewalls,
// RFC 6146 and RFC 6147 for NAT64 and DNS64, RFC 6886 and RFC 6887 for port
// mapping, RFC 9293, RFC 6298 and RFC 6582 for TCP, and what Linux does where
// they leave a choice.
package simnet
