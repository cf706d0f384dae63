package socks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/internal/carry"
)

// relaying serves UDP; whatever is dialled is one host, which answers each datagram
// with "re: " before it.
func relaying(t *testing.T) (s *Server, dials chan string) {
	t.Helper()
	far, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 2048); ; {
			n, from, err := far.ReadFromUDP(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				far.WriteToUDP(append([]byte("re: "), b[:n]...), from)
			}
		}
	}()
	t.Cleanup(func() { far.Close(); <-done })
	dials = make(chan string, 300)
	return &Server{
		Dial: func(ctx context.Context, user, network, address string) (net.Conn, error) {
			dials <- network + " " + address
			var d net.Dialer
			return d.DialContext(ctx, network, far.LocalAddr().String())
		},
		ListenPacket: func(_ context.Context, network, address string) (net.PacketConn, error) {
			return net.ListenPacket(network, address)
		},
	}, dials
}

// associated asks for an association and returns where to send datagrams.
func associated(t *testing.T, c net.Conn) *net.UDPAddr {
	t.Helper()
	play(t, c, []step{{hello, welcome}, {"\x05\x03\x00" + nowhere, "\x05\x00\x00"}})
	b := make([]byte, 7)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	to, _, err := parseAddress(b)
	if err != nil || !to.ip.Addr().IsLoopback() || to.ip.Port() == 0 {
		t.Fatalf("relay at %v, %v: want the address of the connection", to, err)
	}
	return net.UDPAddrFromAddrPort(to.ip)
}

func dialUDP(t *testing.T, relay *net.UDPAddr) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, relay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a datagram until it is answered: any may be lost.
func exchange(t *testing.T, c *net.UDPConn, datagram string) []byte {
	t.Helper()
	b := make([]byte, 2048)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		io.WriteString(c, datagram)
		c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(b); err == nil {
			return b[:n]
		}
	}
	t.Fatal("no answer")
	return nil
}

// SVC-164, acceptance item 3: a client's datagrams reach each destination by a flow
// of its own, and answers say where they come from.
func TestAssociate(t *testing.T) {
	s, dials := relaying(t)
	c, served := client(t, s)
	u := dialUDP(t, associated(t, c))
	for _, to := range []string{v4, name, v4} {
		answer := exchange(t, u, "\x00\x00\x00"+to+"question")
		from, payload, err := parseDatagram(answer)
		if err != nil || !from.ip.Addr().IsLoopback() || string(payload) != "re: question" {
			t.Errorf("got %q from %v, %v", payload, from, err)
		}
	}
	if len(dials) != 2 || <-dials != "udp 100.64.0.7:80" || <-dials != "udp web:80" {
		t.Error("the flows are others than asked for")
	}
	// A fragment, what is cut off and what is of another client are dropped.
	other := dialUDP(t, u.RemoteAddr().(*net.UDPAddr))
	for _, datagram := range []string{"\x00\x00\x01\x01\x0a\x00\x00\x01\x00\x50x", "\x00\x00\x00\x01\x0a", "\x00"} {
		io.WriteString(u, datagram)
	}
	io.WriteString(other, "\x00\x00\x00\x01\x0a\x00\x00\x02\x00\x50x")
	exchange(t, u, "\x00\x00\x00"+v4+"again")
	if len(dials) != 0 {
		t.Errorf("a flow was made to %s", <-dials)
	}
	c.Close()
	if err := <-served; err != nil {
		t.Errorf("served: %v", err)
	}
	if s.Limit.Open() != 0 {
		t.Errorf("%d flows are open after the end", s.Limit.Open())
	}
}

// One association has a bound.
func TestAssociateLimitsFlows(t *testing.T) {
	s, dials := relaying(t)
	s.Limit, s.Traffic = carry.NewLimit(2*maxFlows, 0, nil), new(carry.Traffic)
	c, _ := client(t, s)
	u := dialUDP(t, associated(t, c))
	for port := 1; s.Traffic.Dropped.Load() == 0; port++ {
		if port > maxFlows+1 {
			t.Fatalf("one client has %d flows, want %d at most", len(dials), maxFlows)
		}
		settled := func() bool { return len(dials) >= port || s.Traffic.Dropped.Load() > 0 }
		for tries := 0; !settled(); tries++ {
			if tries%1000 == 0 { // any may be lost; many would be dropped while the flow is made
				u.Write([]byte{0, 0, 0, 1, 10, 0, 0, 1, byte(port >> 8), byte(port), 'x'})
			}
			<-time.After(time.Millisecond)
		}
	}
	if len(dials) != maxFlows {
		t.Errorf("one client has %d flows, want %d", len(dials), maxFlows)
	}
}

// Over a unix socket there is no address to send datagrams to.
func TestAssociateNeedsAnAddress(t *testing.T) {
	s, _ := relaying(t)
	s.Limit, s.Traffic = carry.NewLimit(20, 0, nil), new(carry.Traffic)
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(t.Context(), b) }()
	play(t, a, []step{{hello, welcome}, {"\x05\x03\x00" + nowhere, "\x05\x07\x00" + nowhere}})
	if err := <-done; err == nil {
		t.Error("served without an error")
	}
	a.Close()
}

func FuzzDatagram(f *testing.F) {
	for _, to := range []string{v4, v6, name, "\x03\x00\x00\x50", "\x07"} {
		f.Add([]byte("\x00\x00\x00" + to + "payload"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		to, payload, err := parseDatagram(b)
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(to.String()); err != nil || !bytes.HasSuffix(b, payload) {
			t.Errorf("%q is for %q, %v, with %q", b, to, err, payload)
		}
		if to.ip.IsValid() {
			again, rest, err := parseDatagram(appendDatagram(nil, to.ip, payload))
			if err != nil || again != to || !bytes.Equal(rest, payload) {
				t.Errorf("%v and %q became %v and %q, %v", to, payload, again, rest, err)
			}
		}
	})
}

// What is not valid is written as no address (RFC 1928 section 6).
func TestAppendAddressOfNothing(t *testing.T) {
	if got := string(appendAddress(nil, netip.AddrPort{})); got != nowhere {
		t.Errorf("got %q", got)
	}
}
