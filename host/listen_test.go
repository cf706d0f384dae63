package host

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// Who names 0.0.0.0 gets IPv4 only, as with ssh; an empty host is both families.
func TestListenOnAllOfIPv4(t *testing.T) {
	for address, want := range map[string]string{"0.0.0.0:0": "0.0.0.0:", ":0": "[::]:"} {
		ln, err := OS{}.Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		pc, err := OS{}.ListenPacket(t.Context(), "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for _, got := range []net.Addr{ln.Addr(), pc.LocalAddr()} {
			if !strings.HasPrefix(got.String(), want) {
				t.Errorf("%s listens on %v, want %s", address, got, want)
			}
		}
	}
}

// A server that asks for one address answers at that one alone.
func TestListenUDPAt(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	c, err := OS{}.ListenUDPAt(t.Context(), netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.LocalAddr(); got.Addr() != loopback || got.Port() == 0 {
		t.Errorf("bound to %v", got)
	}
	if other, err := (OS{}).ListenUDPAt(t.Context(), c.LocalAddr()); err == nil {
		other.Close()
		t.Error("one address was bound twice")
	}
}
