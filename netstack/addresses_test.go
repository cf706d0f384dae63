package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// The addresses are replaced: new ones answer, old ones do not, and connections
// of those that stay go on.
func TestSetAddressesReplaces(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	port := portOf(ln.Addr())
	c := dialTCP(t, a, netip.AddrPortFrom(b6, port))
	other := netip.MustParseAddr("100.64.0.9")
	if err := b.SetAddresses([]netip.Addr{other, b6}); err != nil {
		t.Fatal(err)
	}
	dialTCP(t, a, netip.AddrPortFrom(other, port))
	ctx, cancel := contextWithTimeout(t)
	defer cancel()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := a.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(b4, port)); err == nil {
		t.Error("the old address still answers")
	}
	c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("connection of an address that stays: %v", err)
	}
}

// Dials start from the first address of the family; when another becomes the
// first, connections of both go on.
func TestFirstAddressIsDialledFrom(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	pc := listenUDP(t, b, anyPort)
	second := netip.MustParseAddr("100.64.0.77")
	var conns [][2]net.Conn
	for _, order := range [][]netip.Addr{{a4, second, a6}, {second, a4, a6}, {a6, a4, second}} {
		if err := a.SetAddresses(order); err != nil {
			t.Fatal(err)
		}
		want := order[0]
		if want == a6 {
			want = a4
		}
		c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if got := server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != want {
			t.Errorf("own addresses %v: TCP comes from %v", order, got)
		}
		listenUDP(t, a, anyPort).WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())))
		if _, from, err := pc.ReadFromUDPAddrPort(make([]byte, 1)); err != nil || from.Addr() != want {
			t.Errorf("own addresses %v: UDP comes from %v, %v", order, from, err)
		}
		conns = append(conns, [2]net.Conn{c, server})
		for _, pair := range conns {
			pair[0].Write([]byte("x"))
			pair[1].SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(pair[1], make([]byte, 1)); err != nil {
				t.Errorf("own addresses %v: connection from %v: %v", order, pair[0].LocalAddr(), err)
			}
		}
	}
}

// A socket that is not connected follows the node to a new address.
func TestUDPFollowsAddresses(t *testing.T) {
	a, b := pair(t)
	pc, to := listenUDP(t, a, anyPort), listenUDP(t, b, anyPort)
	dst := netip.AddrPortFrom(b4, portOf(to.LocalAddr()))
	for _, own := range []netip.Addr{a4, netip.MustParseAddr("100.64.0.77"), a4} {
		if err := a.SetAddresses([]netip.Addr{own}); err != nil {
			t.Fatal(err)
		}
		if _, err := pc.WriteToUDPAddrPort([]byte("x"), dst); err != nil {
			t.Fatal(err)
		}
		if _, from, err := to.ReadFromUDPAddrPort(make([]byte, 1)); err != nil || from.Addr() != own {
			t.Errorf("from %v, %v; want %v", from, err, own)
		}
	}
	if err := a.SetAddresses(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := pc.WriteToUDPAddrPort([]byte("x"), dst); !errors.Is(err, ErrNoAddress) {
		t.Errorf("without an address: %v, want ErrNoAddress", err)
	}
}

// What cannot be a node's address is named in the error, and the rest is set.
func TestSetAddressesRefuses(t *testing.T) {
	s := newStack(t)
	for _, bad := range []string{"", "0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1"} {
		addr, _ := netip.ParseAddr(bad)
		if err := s.SetAddresses([]netip.Addr{addr, a4, a4, netip.AddrFrom16(a4.As16())}); err == nil {
			t.Errorf("%q is taken", bad)
		}
		if !s.addresses.has(a4) || s.addresses.primaryFor(b4) != a4 {
			t.Errorf("beside %q the good address is not set", bad)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{{MTU: 1279}, {MTU: -1}, {MTU: 65536}, {Congestion: "vegas"}} {
		if s, err := New(c); err == nil {
			s.Close()
			t.Errorf("%+v is taken", c)
		}
	}
	for _, c := range []Config{{MTU: 65535}, {Congestion: "cubic", Recovery: RACKRecovery}} {
		s, err := New(c)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		s.Close()
	}
}
