package netstack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// Hosts behind the stack b.
var (
	behind4 = netip.MustParsePrefix("10.7.0.0/24")
	behind6 = netip.MustParsePrefix("2001:db8:7::/64")
	host4   = netip.MustParseAddr("10.7.0.5")
	host6   = netip.MustParseAddr("2001:db8:7::5")
)

// errNoHost is what the host behind answers that is not there.
var errNoHost = errors.New("no such host")

// A testForward forwards for the stack b of a pair: connections and datagrams are
// echoed, and the addresses of what was asked for are kept.
type testForward struct {
	*Forwarder
	routes  *actor.Cell[[]netip.Prefix]
	gate    chan struct{} // TCP waits for it before it accepts; nil: it does not
	most    int           // flows of each kind; 0: as many as usual
	refuse  bool
	hangsUp bool // TCP says good-bye first

	accepting func(context.Context) context.Context // for Accept; nil: that of the request

	mu   sync.Mutex
	seen []netip.AddrPort
}

// forwardPair returns a pair whose second stack forwards.
func forwardPair(t *testing.T, edit func(*testForward)) (a, b *Stack, f *testForward) {
	a, b = pair(t)
	f = &testForward{routes: actor.NewCell([]netip.Prefix{behind4, behind6})}
	if edit != nil {
		edit(f)
	}
	f.Forwarder = b.NewForwarder(ForwardConfig{Routes: f.routes, TCP: f.tcp, UDP: f.udp, Echo: f.echo})
	for kind := range f.limits {
		f.limits[kind] = cmp.Or(f.most, f.limits[kind])
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		b.Close()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
	for b.links[0].forward.Load() == nil {
		select {
		case <-within(t).Done():
			t.Fatal("the forwarder does not begin")
		case <-time.After(time.Millisecond):
		}
	}
	return a, b, f
}

func (f *testForward) note(to netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, to)
}

func (f *testForward) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

func (f *testForward) tcp(ctx context.Context, r *Request) {
	f.note(r.To)
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-ctx.Done():
			return
		}
	}
	if f.refuse {
		return
	}
	accepting := ctx
	if f.accepting != nil {
		accepting = f.accepting(ctx)
	}
	c, err := r.Accept(accepting)
	if err != nil {
		return
	}
	if accepting.Err() != nil {
		f.note(netip.AddrPort{}) // accepted in spite of that
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if f.hangsUp {
		c.Write([]byte("bye"))
		c.(*Conn).CloseWrite()
		io.Copy(io.Discard, c)
		return
	}
	io.Copy(c, c)
	c.(*Conn).CloseWrite()
}

func (f *testForward) udp(ctx context.Context, c *UDPConn) {
	f.note(c.LocalAddr().(*net.UDPAddr).AddrPort())
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	io.Copy(c, c)
}

func (f *testForward) echo(_ context.Context, _, to netip.Addr, _ []byte) error {
	if to == host4 || to == host6 {
		return nil
	}
	return errNoHost
}

// waitFor waits until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t); !ok(); {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain: " + what)
		case <-time.After(time.Millisecond):
		}
	}
}

// SVC-47, SVC-53: TCP, UDP and echo requests reach hosts behind the stack in both
// families, and answers come from their addresses.
func TestForwardsToHostsBehind(t *testing.T) {
	a, b, f := forwardPair(t, nil)
	listenTCP(t, b, netip.AddrPortFrom(netip.Addr{}, 80)) // sockets of the node itself do not
	listenUDP(t, b, netip.AddrPortFrom(netip.Addr{}, 80)) // take what is for others
	for _, host := range []netip.Addr{host4, host6} {
		to := netip.AddrPortFrom(host, 80)
		c := dialTCP(t, a, to)
		c.Write([]byte("over TCP"))
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "over TCP" {
			t.Errorf("TCP to %v: %q, %v", to, got, err)
		}
		u, err := a.DialUDP(within(t), netip.AddrPort{}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 100)
		for _, text := range []string{"first", "second"} {
			u.Write([]byte(text))
			if n, err := u.Read(buf); err != nil || string(buf[:n]) != text {
				t.Errorf("UDP to %v: %q, %v", to, buf[:n], err)
			}
		}
		if _, err := a.Ping(within(t), host, []byte("sixteen bytes !!")); err != nil {
			t.Errorf("echo of %v: %v", host, err)
		}
	}
	waitFor(t, "the count", func() bool { return f.Stats().Echo == 2 }) // which comes after the answer
	if s := f.Stats(); s.TCP != 2 || s.UDP != 2 || s.Echo != 2 || s.Failed != 0 || s.Busy != 0 {
		t.Errorf("%+v", s)
	}
}

// Datagrams longer than the MTU, which travel in fragments, pass whole: the one
// that begins a flow, too.
func TestForwardsFragments(t *testing.T) {
	a, _, f := forwardPair(t, nil)
	for i, host := range []netip.Addr{host4, host6} {
		u, err := a.DialUDP(within(t), netip.AddrPort{}, netip.AddrPortFrom(host, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.SetDeadline(time.Now().Add(patience))
		sent, buf := make([]byte, 9000), make([]byte, 65535)
		for size := len(sent); size > 1000; size -= 4000 {
			sent[size-1] = byte(size)
			u.Write(sent[:size])
			if n, err := u.Read(buf); err != nil || !bytes.Equal(buf[:n], sent[:size]) {
				t.Errorf("%d bytes to %v: %d came back, %v", size, host, n, err)
			}
		}
		if s := f.Stats(); s.UDP != uint64(i+1) || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// SVC-53: what the host behind refuses is refused with a reset; SVC-62: without an
// answer of the host there is none.
func TestForwardFailureIsARefusal(t *testing.T) {
	a, _, f := forwardPair(t, func(f *testForward) { f.refuse = true })
	if _, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(host4, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want a refusal", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		waitFor(t, "failure", func() bool { return f.Stats().Failed == 2 })
		cancel()
	}()
	if _, err := a.Ping(ctx, host4.Next(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("echo of nobody: %v", err)
	}
}

// A segment of a connection with a host behind that the node does not have, as after
// a restart, is reset as by that host; a reset, and what is for other hosts, is not.
func TestForwardResetsStrays(t *testing.T) {
	b := newStack(t, b4, b6)
	f := b.NewForwarder(ForwardConfig{Routes: actor.NewCell([]netip.Prefix{behind4, behind6})})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	defer func() { cancel(); b.Close(); <-done }()
	waitFor(t, "forwarder", func() bool { return b.links[0].forward.Load() != nil })
	d := b.Link().NewDelivery()
	deliver := func(src, dst netip.AddrPort, flags byte) {
		const flagsAt, ackAt = 13, 8 // in a TCP header
		pkt := synPacket(t, src, dst, 7)
		var h packet.Header
		h.Parse(pkt)
		pkt[h.Transport+flagsAt] = flags
		binary.BigEndian.PutUint32(pkt[h.Transport+ackAt:], 99)
		pkt = withChecksum(t, pkt)
		copy(d.Reserve(len(pkt)), pkt)
		d.Commit(packet.Merged{Len: len(pkt), Count: 1})
		d.Flush()
	}
	for _, c := range []struct{ src, host netip.Addr }{{a4, host4}, {a6, host6}} {
		src, dst := netip.AddrPortFrom(c.src, 1234), netip.AddrPortFrom(c.host, 80)
		for _, flags := range []byte{packet.ACK, packet.ACK | packet.PSH, packet.FIN | packet.ACK, packet.SYN | packet.ACK} {
			deliver(src, dst, flags)
			var h packet.Header
			answer := take(t, b)
			h.Parse(answer)
			if seq := binary.BigEndian.Uint32(answer[h.Transport+4:]); h.TCPFlags != packet.RST || h.Src != dst || h.Dst != src || seq != 99 {
				t.Errorf("%v with flags %#x: the answer is %v, sequence number %d", dst, flags, h, seq)
			}
		}
		deliver(src, dst, packet.RST)
		deliver(src, dst, packet.RST|packet.ACK)
		silent(t, b)
	}
	deliver(netip.AddrPortFrom(a4, 1234), netip.MustParseAddrPort("10.8.0.5:80"), packet.ACK)
	silent(t, b)
}

// What is to be accepted within a time that has passed is not accepted, also if that
// passes in the middle.
func TestForwardAcceptsInTime(t *testing.T) {
	for name, accepting := range map[string]func(context.Context) context.Context{
		"before": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx
		},
		"meanwhile": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			go cancel()
			return ctx
		},
	} {
		t.Run(name, func(t *testing.T) {
			const rounds = 50
			a, _, f := forwardPair(t, func(f *testForward) { f.accepting = accepting })
			for range rounds {
				c, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(host4, 80))
				if err == nil {
					c.SetDeadline(time.Now().Add(patience))
					c.Write([]byte{0}) // which comes back if it was accepted in time
					_, err = c.Read(make([]byte, 1))
					c.Close()
				}
				if err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) && err != io.EOF {
					t.Fatal(err)
				}
			}
			waitFor(t, "the end", func() bool { return f.Stats().Open == 0 })
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, to := range f.seen {
				if name == "before" && !to.IsValid() {
					t.Fatal("accepted after the end")
				}
			}
		})
	}
}

// SVC-50: the SYNs of one connection are one request, and its handshake waits for
// the host behind (SVC-53).
func TestForwardDuplicateSYN(t *testing.T) {
	f := &testForward{}
	b := newStack(t, b4)
	f.routes = actor.NewCell([]netip.Prefix{behind4})
	d := b.Link().NewDelivery()
	f.gate = make(chan struct{})
	f.Forwarder = b.NewForwarder(ForwardConfig{Routes: f.routes, TCP: f.tcp})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	defer func() { cancel(); b.Close(); <-done }()
	waitFor(t, "forwarder", func() bool { return b.links[0].forward.Load() != nil })

	syn := synPacket(t, netip.AddrPortFrom(a4, 1234), netip.AddrPortFrom(host4, 80), 7)
	for range 5 {
		copy(d.Reserve(len(syn)), syn)
		d.Commit(packet.Merged{Len: len(syn), Count: 1})
		d.Flush()
	}
	waitFor(t, "request", func() bool { return f.requests() > 0 })
	silent(t, b)
	if n := f.Stats().Open; n != 1 || f.requests() != 1 {
		t.Errorf("%d requests, %d open; want one", f.requests(), n)
	}
	close(f.gate)
	var h packet.Header
	answer := take(t, b)
	h.Parse(answer)
	if h.TCPFlags != packet.SYN|packet.ACK || h.Src != netip.AddrPortFrom(host4, 80) {
		t.Errorf("answer is %v", h)
	}
}

// A SYN of the same address and port as a connection in TIME-WAIT opens a new one.
func TestForwardReusesTimeWait(t *testing.T) {
	a, b, f := forwardPair(t, func(f *testForward) { f.hangsUp = true })
	listenTCP(t, b, netip.AddrPortFrom(netip.Addr{}, 80)) // gVisor would give it the SYN
	for i := range 3 {
		var c net.Conn
		waitFor(t, "the port", func() (ok bool) {
			var err error
			c, err = a.dialTCP(within(t), netip.AddrPortFrom(a4, 20000), netip.AddrPortFrom(host4, 80))
			if err != nil && !errors.Is(err, syscall.EADDRINUSE) { // as while a has not closed the one before
				t.Fatal(err)
			}
			return err == nil
		})
		if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
		waitFor(t, "the end", func() bool { return f.Stats().Open == 0 && f.Stats().TCP == uint64(i+1) })
	}
}

// Own addresses are not forwarded to though they are in a route, and flows end
// with their route.
func TestForwardOnlyRoutes(t *testing.T) {
	a, b, f := forwardPair(t, func(f *testForward) { f.routes.Store([]netip.Prefix{behind4, netip.PrefixFrom(b4, 24).Masked()}) })
	refused := func(to netip.AddrPort) {
		t.Helper()
		if _, err := a.DialTCP(within(t), netip.Addr{}, to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial %v: %v, want a refusal", to, err)
		}
	}
	refused(netip.AddrPortFrom(b4, 80))
	ctx, cancel := context.WithCancel(context.Background())
	other, err := a.DialUDP(ctx, netip.AddrPort{}, netip.AddrPortFrom(b4, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.Write([]byte("to b itself"))
	waitFor(t, "lost datagram", func() bool { return b.Stats().UDPNobody == 1 })
	cancel()
	if n := f.requests(); n != 0 {
		t.Errorf("%d requests", n)
	}

	c := dialTCP(t, a, netip.AddrPortFrom(host4, 80))
	waitFor(t, "the connection", func() bool { return f.Stats().TCP == 1 })
	w := b.links[0].forward.Load()
	f.routes.Store(nil)
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection over a route that has gone: %v, want a reset", err)
	}
	waitFor(t, "end of forwarding", func() bool { return b.links[0].forward.Load() == nil })
	waitFor(t, "end of flows", func() bool { return f.Stats().Open == 0 })

	late := &forwarded{kind: forwardTCP, from: netip.AddrPortFrom(a4, 1), to: netip.AddrPortFrom(host4, 80)}
	if err := w.begin(late, func(context.Context) { t.Error("served") }); !errors.Is(err, errNoRoute) {
		t.Errorf("a flow that was on its way when its route went: %v", err)
	}
}

// Flows that the policy no longer permits end, connections with a reset; others go
// on.
func TestForwardEnd(t *testing.T) {
	a, _, f := forwardPair(t, nil)
	stays, goes := dialTCP(t, a, netip.AddrPortFrom(host4, 80)), dialTCP(t, a, netip.AddrPortFrom(host4, 81))
	asks, lost := echoingUDP(t, a, netip.AddrPortFrom(host4, 80)), echoingUDP(t, a, netip.AddrPortFrom(host4, 81))
	waitFor(t, "flows", func() bool { return f.Stats().TCP == 2 && f.Stats().Open == 4 })
	f.End(func(_ packet.Proto, from, to netip.AddrPort) bool { return from.Addr() == a4 && to.Port() == 81 })
	goes.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := goes.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("ended connection: %d bytes, %v; want a reset", n, err)
	}
	waitFor(t, "the end of two flows", func() bool { return f.Stats().Open == 2 })
	for _, c := range []net.Conn{stays, asks} {
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("the other flow of %s: %v", c.LocalAddr().Network(), err)
		}
	}
	if n := f.requests(); n != 4 {
		t.Errorf("%d flows were begun, want 4: the one that stays is the one of before", n)
	}
	lost.Write([]byte("x")) // what may begin a flow is for who serves it to say
	waitFor(t, "the flow that begins anew", func() bool { return f.requests() == 5 })
}

// echoingUDP returns a flow of datagrams that has been answered.
func echoingUDP(t *testing.T, s *Stack, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := s.DialUDP(within(t), netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatalf("UDP to %v: %v", to, err)
	}
	return c
}

// What begins a flow with somebody else never reaches the stack: it would answer
// echo requests in the name of the host.
func TestForwardTakes(t *testing.T) {
	_, b, _ := forwardPair(t, nil)
	w := b.links[0].forward.Load()
	request := func(dst netip.Addr) []byte {
		pkt, err := packet.AppendIP(nil, a4, dst, packet.ICMPv4, 8)
		if err != nil {
			t.Fatal(err)
		}
		return withChecksum(t, append(pkt, 8, 0, 0, 0, 0, 1, 0, 1))
	}
	fragment := request(host4)
	fragment[6] |= 0x20 // more fragments: RFC 791 section 3.1
	packet.SetIPv4Checksum(fragment, 20)
	for _, test := range []struct {
		name  string
		pkt   []byte
		taken bool
	}{
		{"to a host", request(host4), true},
		{"a fragment", fragment, true},
		{"to nobody", request(netip.MustParseAddr("10.8.0.1")), true},
		{"to b itself", request(b4), false},
		{"nothing", nil, false},
		{"UDP to b itself", udpPacket(t, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), "x"), false},
		{"UDP to a host", udpPacket(t, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(host4, 2), "x"), true},
		{"UDP of a known flow", udpPacket(t, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(host4, 2), "x"), false},
		{"SYN to b itself", synPacket(t, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), 1), false},
		{"SYN to a host", synPacket(t, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(host4, 2), 1), true},
	} {
		if got := w.takes(test.pkt); got != test.taken {
			t.Errorf("%s: taken is %v", test.name, got)
		}
	}
}
