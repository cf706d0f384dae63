package proxy

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/internal/carry"
)

// udpEcho answers each datagram with where it came from.
func udpEcho(t *testing.T) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 2048); ; {
			_, from, err := pc.ReadFromUDP(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				pc.WriteToUDP([]byte(from.String()), from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc
}

// exchange sends datagrams until one is answered: any may be lost.
func exchange(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 2048)
	for ctx := within(t); ctx.Err() == nil; {
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(b); err == nil {
			return string(b[:n])
		}
	}
	t.Fatal("no answer")
	return ""
}

// Each client has a flow of its own, in both directions; it ends when it is idle
// (SVC-57).
func TestDatagramsAreForwarded(t *testing.T) {
	backend := udpEcho(t)
	at := backend.LocalAddr().String()
	s, l := startSet(t, nil, "-L 0:"+at+"/udp,idle=20ms", "-R 0:"+at+"/udp,idle=20ms")
	for i, st := range s.List() {
		one, two := dial(t, "udp", st.Listen), dial(t, "udp", st.Listen)
		a, b := exchange(t, one), exchange(t, two)
		if a == b {
			t.Errorf("%s: two clients share the flow from %s", st.Forward, a)
		}
		waitFor(t, "the flows to be idle", func() bool { return s.List()[i].Open == 0 })
		if st := s.List()[i]; st.Total < 2 || st.Failed != 0 || st.BytesIn < 2 || st.BytesOut == 0 {
			t.Errorf("status %+v", st)
		}
	}
	if len(l.behalf) != 0 {
		t.Errorf("sockets still act for peers after their flows: %v", l.behalf)
	}
}

// SVC-57: a service of this machine sees the port of its client on the tailnet, if
// it is free here.
func TestDatagramsKeepTheirPort(t *testing.T) {
	backend := udpEcho(t)
	s, l := startSet(t, nil, "-R 0:"+backend.LocalAddr().String()+"/udp")
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	c, err := d.Dial("udp", s.List()[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The port is taken on this machine by the client itself: another one will do.
	from := exchange(t, c)
	if from == c.LocalAddr().String() {
		t.Errorf("the flow came from its client's socket %s", from)
	}
	addr, err := net.ResolveUDPAddr("udp", from)
	if err != nil {
		t.Fatal(err)
	}
	if peer, ok := l.actsFor("udp", addr); !ok || peer.String() != c.LocalAddr().String() {
		t.Errorf("%v acts for %v, want %v", addr, peer, c.LocalAddr())
	}
	config := Config{Host: bothSides{l}}
	waitFor(t, "a flow from its client's port", func() bool { // another process may take a port that was free
		free, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		client := carry.AddrPortOf(free.LocalAddr())
		free.Close()
		near, err := config.dialNear(t.Context(), backend.LocalAddr().String(), client)
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		return carry.AddrPortOf(near.LocalAddr()).Port() == client.Port()
	})
}

// A source that begins flows without end leaves some to others.
func TestDatagramsLimitFlows(t *testing.T) {
	backend := udpEcho(t)
	s, _ := startSet(t, onOverlay, "-R 0:"+backend.LocalAddr().String()+"/udp,max=4")
	for range 2 {
		exchange(t, dial(t, "udp", s.List()[0].Listen))
	}
	late := dial(t, "udp", s.List()[0].Listen)
	late.Write([]byte("x"))
	waitFor(t, "the third flow to be refused", func() bool { return s.List()[0].Refused > 0 })
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	other, err := d.Dial("udp", s.List()[0].Listen)
	if err != nil {
		t.Skipf("this machine has no second loopback address: %v", err)
	}
	defer other.Close()
	exchange(t, other)
}

// A socket that acts for a peer stands in nobody's way, and is forgotten once,
// however often it is closed: another one may have its address by then.
func TestBehalfConnection(t *testing.T) {
	backend := udpEcho(t)
	forgotten := 0
	s := NewSet(Config{Host: bothSides{new(loopback)}, Tailnet: counting{new(loopback), &forgotten}})
	r := newRunning(t.Context(), s, specs(t, "-R 0:"+backend.LocalAddr().String()+"/udp")[0])
	c, err := r.dialBehalf(t.Context(), netip.MustParseAddrPort("100.64.0.1:7"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := carry.Unwrap(c).(*net.UDPConn); !ok {
		t.Errorf("the socket is a %T", carry.Unwrap(c))
	}
	c.Close()
	c.Close()
	if forgotten != 1 {
		t.Errorf("forgotten %d times", forgotten)
	}
}

// A counting counts what is forgotten.
type counting struct {
	*loopback
	forgotten *int
}

func (c counting) OnBehalf(string, net.Addr, netip.AddrPort) (forget func()) {
	return func() { *c.forgotten++ }
}
