package host

import (
	"net/netip"
	"testing"
)

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
