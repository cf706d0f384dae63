package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// Once the listener is gone its port refuses again; its connections go on
// (SVC-64).
func TestListenerCloseEndsAcceptOnly(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	c := dialTCP(t, a, dst)
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	waiting := make(chan error, 2)
	for range 2 {
		go func() { _, err := ln.Accept(); waiting <- err }()
	}
	if err := errors.Join(ln.Close(), ln.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	for range 2 {
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept returned %v, want net.ErrClosed", err)
		}
	}
	if _, err := a.DialTCP(within(t), netip.Addr{}, dst); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Close: %v, want ECONNREFUSED", err)
	}
	go s.Write([]byte("still here"))
	got := make([]byte, 10)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "still here" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A connection that nobody has accepted is reset when its listener closes
// (SVC-64), and the port may be listened on again at once.
func TestListenerCloseResetsQueued(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	ln.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want ECONNRESET", err)
	}
	listenTCP(t, b, netip.AddrPortFrom(netip.Addr{}, portOf(ln.Addr())))
}

// A listener's port may be taken again while its connections live.
func TestListenAgainBesideConnections(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, netip.AddrPortFrom(b4, 0))
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	old := dialTCP(t, a, dst)
	served, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	ln.Close()
	again := listenTCP(t, b, dst)
	dialTCP(t, a, dst)
	if c, err := again.Accept(); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	go served.Write([]byte("x"))
	if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
		t.Errorf("the old connection: %v", err)
	}
}

// Of several listeners on a port the most specific one gets the connection
// (SVC-63), for TCP and UDP.
func TestMostSpecificWins(t *testing.T) {
	a, b := pair(t)
	const port = 7000
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for _, on := range []netip.Addr{{}, b4} { // both families first: the order must not matter
		ln := listenTCP(t, b, netip.AddrPortFrom(on, port))
		go greet(ln, "tcp "+on.String())
	}
	for _, tt := range []struct {
		dst  netip.Addr
		want string
	}{{b4, "tcp " + b4.String()}, {b6, "tcp " + netip.Addr{}.String()}} {
		c := dialTCP(t, a, netip.AddrPortFrom(tt.dst, port))
		if got, err := io.ReadAll(c); err != nil || string(got) != tt.want {
			t.Errorf("dial %v: %q, %v; want %q", tt.dst, got, err, tt.want)
		}
	}
	for _, on := range []netip.Addr{v4, v6} {
		ln := listenTCP(t, b, netip.AddrPortFrom(on, port+1))
		go greet(ln, on.String())
	}
	for dst, want := range map[netip.Addr]string{b4: v4.String(), b6: v6.String()} {
		c := dialTCP(t, a, netip.AddrPortFrom(dst, port+1))
		if got, err := io.ReadAll(c); err != nil || string(got) != want {
			t.Errorf("dial %v: %q, %v; want %q", dst, got, err, want)
		}
	}
}

// greet answers every connection with text.
func greet(ln net.Listener, text string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, text)
		c.Close()
	}
}

// A listener on one family refuses the other.
func TestListenOneFamily(t *testing.T) {
	a, b := pair(t)
	for on, other := range map[netip.Addr]netip.Addr{netip.IPv4Unspecified(): b6, netip.IPv6Unspecified(): b4} {
		ln := listenTCP(t, b, netip.AddrPortFrom(on, 0))
		if _, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(other, portOf(ln.Addr()))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial %v of a listener on %v: %v, want ECONNREFUSED", other, on, err)
		}
		if got := ln.Addr().(*net.TCPAddr).AddrPort().Addr(); got.Unmap() != on {
			t.Errorf("listener on %v says %v", on, got)
		}
	}
}

func TestListenErrors(t *testing.T) {
	s := newStack(t, a4)
	tcp := listenTCP(t, s, netip.AddrPortFrom(a4, 0))
	udp, err := s.ListenUDP(netip.AddrPortFrom(a4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, tt := range []struct {
		name, network string
		addr          netip.AddrPort
		want          error
	}{
		{"TCP port in use", "tcp", netip.AddrPortFrom(a4, portOf(tcp.Addr())), syscall.EADDRINUSE},
		{"UDP port in use", "udp", netip.AddrPortFrom(a4, portOf(udp.LocalAddr())), syscall.EADDRINUSE},
		{"TCP on a foreign address", "tcp", netip.AddrPortFrom(b4, 0), syscall.EADDRNOTAVAIL},
		{"UDP on a foreign address", "udp", netip.AddrPortFrom(b4, 0), syscall.EADDRNOTAVAIL},
	} {
		var err error
		if tt.network == "tcp" {
			_, err = s.ListenTCP(tt.addr)
		} else {
			_, err = s.ListenUDP(tt.addr)
		}
		var op *net.OpError
		if !errors.Is(err, tt.want) || !errors.As(err, &op) || op.Op != "listen" || op.Net != tt.network {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A listener that is made before the node has addresses serves those that come
// (SVC-63).
func TestListenBeforeAddresses(t *testing.T) {
	a, b := newStack(t, a4), newStack(t)
	join(t, a, b, segmented)
	ln := listenTCP(t, b, anyPort)
	go greet(ln, "hello")
	if err := b.SetAddresses([]netip.Addr{b4}); err != nil {
		t.Fatal(err)
	}
	c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A flood of SYNs, each with its own port and unanswered, costs no more memory
// than the backlog; a real connection still gets through, by a SYN cookie
// (SVC-65).
func TestSynFloodIsBounded(t *testing.T) {
	b := newStack(t, b4)
	a := newStack(t, a4)
	join(t, a, b, segmented)
	ln := listenTCP(t, b, anyPort)
	go greet(ln, "hello")
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	flooder := netip.MustParseAddr("100.64.7.7")
	for port := range 8 * backlog {
		b.Link().Inject(synPacket(t, netip.AddrPortFrom(flooder, uint16(20000+port)), dst, uint32(port)))
	}
	c := dialTCP(t, a, dst)
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("through the flood: %q, %v", got, err)
	}
	if got := len(b.gv.RegisteredEndpoints()); got > backlog+100 {
		t.Errorf("%d endpoints, want about %d at most", got, backlog)
	}
}

// Connections that nobody accepts stop being taken at the backlog.
func TestBacklogIsBounded(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	type result struct {
		c   net.Conn
		err error
	}
	const tries = backlog + 200
	results := make(chan result, tries)
	ctx, cancel := contextWithTimeout(t)
	defer cancel()
	for range tries {
		go func() {
			c, err := a.DialTCP(ctx, netip.Addr{}, dst)
			results <- result{c, err}
		}()
	}
	taken := 0
	for range tries {
		if r := <-results; r.err == nil {
			taken++
			defer r.c.Close()
		}
	}
	// gVisor answers by SYN cookie what the queue has no room for, so a dialler
	// may believe that it is connected; the memory is what is bounded.
	if got := len(b.gv.RegisteredEndpoints()); got > 2*backlog+100 {
		t.Errorf("%d endpoints for %d dials, %d of them connected", got, tries, taken)
	}
	if c, err := ln.Accept(); err != nil {
		t.Errorf("Accept: %v", err)
	} else {
		c.Close()
	}
}

// Notify tells of each connection that comes, and of one that waits already.
func TestListenerNotifies(t *testing.T) {
	a, b := pair(t)
	ln, err := b.ListenTCP(netip.AddrPortFrom(b4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dial := func() {
		c, err := a.DialTCP(t.Context(), netip.Addr{}, netip.AddrPortFrom(b4, 80))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	dial()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	told := make(chan struct{}, 10)
	ln.Notify(func() { told <- struct{}{} })
	select {
	case <-told:
		t.Error("nothing waits")
	default:
	}
	for range 2 {
		dial()
		select {
		case <-told:
		case <-within(t).Done():
			t.Fatal("a connection waits, and nobody was told")
		}
	}
	again, err := b.ListenTCP(netip.AddrPortFrom(b4, 81))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	c, err := a.DialTCP(t.Context(), netip.Addr{}, netip.AddrPortFrom(b4, 81))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	again.Notify(func() { told <- struct{}{} }) // the last ACK may still be on its way
	select {
	case <-told:
	case <-within(t).Done():
		t.Fatal("a connection waited, and nobody was told")
	}
}
