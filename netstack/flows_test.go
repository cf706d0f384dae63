package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// flow returns the one connection of s with that remote port; false for none.
func flow(s *Stack, remote uint16) (f Flow, ok bool) {
	for _, f := range s.Flows() {
		if f.Remote.Port() == remote {
			return f, true
		}
	}
	return f, false
}

// TestFlows: both ends of a connection see its addresses and who opened it, one
// that nobody has accepted included; listeners are none.
func TestFlows(t *testing.T) {
	a, b := pair(t)
	for _, own := range []netip.Addr{b4, b6} {
		to := netip.AddrPortFrom(own, 80)
		l, err := b.ListenTCP(to)
		if err != nil {
			t.Fatal(err)
		}
		if f := b.Flows(); len(f) != 0 {
			t.Errorf("a listener is a flow: %+v", f)
		}
		c, err := a.DialTCP(t.Context(), netip.Addr{}, to)
		if err != nil {
			t.Fatal(err)
		}
		from := c.LocalAddr().(*net.TCPAddr).AddrPort()
		if f, ok := flow(a, 80); !ok || f.Local != from || f.Remote != to || !f.Dialed {
			t.Errorf("%v, at the dialer: %+v, %v", to, f, ok)
		}
		if f, ok := flow(b, from.Port()); !ok || f.Local != to || f.Remote != from || f.Dialed {
			t.Errorf("%v, not accepted yet: %+v, %v", to, f, ok)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := flow(b, from.Port()); !ok || f.Dialed {
			t.Errorf("%v, accepted: %+v, %v", to, f, ok)
		}
		f, _ := flow(a, 80)
		f.Abort()
		if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, read after the other side aborted: %v", to, err)
		}
		if f := a.Flows(); len(f) != 0 {
			t.Errorf("%v, after Abort: %+v", to, f)
		}
		c.Close()
		accepted.Close()
		l.Close()
	}
}

// TestAbort: an aborted connection fails on both sides; another between the same
// nodes goes on.
func TestAbort(t *testing.T) {
	a, b := pair(t)
	l, err := b.ListenTCP(netip.AddrPortFrom(b4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open := func() (dialed, accepted net.Conn) {
		dialed, err := a.DialTCP(t.Context(), netip.Addr{}, netip.AddrPortFrom(b4, 80))
		if err != nil {
			t.Fatal(err)
		}
		if accepted, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return dialed, accepted
	}
	doomed, doomedAt := open()
	other, otherAt := open()
	for _, c := range []net.Conn{doomed, doomedAt, other, otherAt} {
		defer c.Close()
	}
	f, ok := flow(b, doomed.LocalAddr().(*net.TCPAddr).AddrPort().Port())
	if !ok {
		t.Fatal("the connection is not listed")
	}
	f.Abort()
	if _, err := doomed.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read at the peer: %v, want a reset", err)
	}
	if _, err := doomedAt.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("read here: %v, want an abort", err)
	}
	if _, err := other.Write([]byte("on")); err != nil {
		t.Error(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(otherAt, got); err != nil || string(got) != "on" {
		t.Errorf("the other connection got %q, %v", got, err)
	}
}
