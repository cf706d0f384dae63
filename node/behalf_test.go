package node

import (
	"net"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// SVC-54: who is behind a socket of the host. The system lets sockets connected to
// different hosts share a port; where the peers behind them are of different
// nodes, nobody is taken for the other.
func TestSVC54Behalf(t *testing.T) {
	var b behalf
	ada, other, bob := netip.MustParseAddrPort("100.64.0.1:5000"), netip.MustParseAddrPort("100.64.0.1:5001"), netip.MustParseAddrPort("100.64.0.2:5000")
	socket := netip.MustParseAddrPort("192.168.1.2:40000")
	tcp, udp := net.TCPAddrFromAddrPort(socket), net.UDPAddrFromAddrPort(socket)
	want := func(what string, peer netip.AddrPort) {
		t.Helper()
		got, ok := b.peer("[::ffff:192.168.1.2]:40000")
		if ok != peer.IsValid() || ok && got != peer {
			t.Errorf("%s: %v, %v, want %v", what, got, ok, peer)
		}
	}
	want("nobody", netip.AddrPort{})
	forgetAda := b.note(packet.TCP, tcp, ada)
	want("one", ada)
	forgetOther := b.note(packet.TCP, tcp, other)
	want("two of one node", ada)
	forgetBob := b.note(packet.TCP, tcp, bob)
	forgetUDP := b.note(packet.UDP, udp, ada)
	want("two nodes", netip.AddrPort{})
	forgetAda()
	want("still two", netip.AddrPort{})
	forgetOther()
	want("the one that is left", bob)
	forgetBob()
	want("UDP", ada)
	forgetUDP()
	want("nobody again", netip.AddrPort{})
	if len(b.peers) != 0 {
		t.Errorf("%v is left", b.peers)
	}
	if _, ok := b.peer("192.168.1.2"); ok {
		t.Error("an address without a port is somebody's")
	}
}
