package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport"
)

var (
	peer4 = transport.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:41641")}
	peer6 = transport.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:41641")}
)

// TestServeBinds: both families are bound, each by itself, and Bound tells
// (PATH-53, PATH-54).
func TestServeBinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		s := New(Config{Network: n, Port: 41641, NewReceiver: newDatagrams().receiver})
		if b, _ := s.Bound(); b != (Bound{}) {
			t.Errorf("bound to %v before Serve", b)
		}
		_, changed := s.Bound()
		stop := serve(t, s)
		<-changed
		want := Bound{netip.MustParseAddrPort("0.0.0.0:41641"), netip.MustParseAddrPort("[::]:41641")}
		if b, _ := s.Bound(); b != want {
			t.Errorf("bound to %v, want %v", b, want)
		}
		if p4, p6 := s.LocalPorts(); p4 != 41641 || p6 != 41641 {
			t.Errorf("ports %d and %d, want 41641", p4, p6)
		}
		stop()
		if b, _ := s.Bound(); b != (Bound{}) {
			t.Errorf("bound to %v after Serve", b)
		}
		for _, family := range []string{"udp4", "udp6"} {
			select {
			case <-n.conn(family).closed:
			default:
				t.Errorf("%s socket is left open", family)
			}
		}
	})
}

// TestServeAgain: a restarted Serve works like the first (STYLE of actors: all
// state is made anew).
func TestServeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, d := new(fakeNetwork), newDatagrams()
		s := New(Config{Network: n, NewReceiver: d.receiver})
		for range 2 {
			stop := serve(t, s)
			synctest.Wait()
			n.conn("udp4").reads <- read{messages: []host.Message{{Buf: []byte("hello"), Segment: 5, From: peer4.Addr}}}
			if got := d.next(); string(got.b) != "hello" {
				t.Errorf("received %q", got.b)
			}
			stop()
		}
	})
}

// TestPortInUse: a configured port that is not free gives way to any, with a
// line for the operator (PATH-54).
func TestPortInUse(t *testing.T) {
	busy, err := host.OS{}.ListenUDP(t.Context(), "udp4", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	var log bytes.Buffer
	want := busy.LocalAddr().Port()
	s := New(Config{Network: host.OS{}, Port: want, NewReceiver: newDatagrams().receiver, Logger: textLogger(&log)})
	_, changed := s.Bound()
	stop := serve(t, s)
	<-changed
	got, _ := s.LocalPorts()
	stop()
	if got == 0 || got == want {
		t.Errorf("bound to port %d, want one other than %d", got, want)
	}
	if !strings.Contains(log.String(), "UDP port is not free") {
		t.Errorf("log does not say that the port was busy:\n%s", log.String())
	}
}

// TestRebindPorts: the candidates are the configured port, the one in use
// unless the configuration has changed, and any (PATH-54).
func TestRebindPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNetwork{refuse: func(family string, port uint16) error {
			if family == "udp6" || port == 41641 {
				return syscall.EADDRINUSE
			}
			return nil
		}}
		s := New(Config{Network: n, Port: 41641, NewReceiver: newDatagrams().receiver})
		defer serve(t, s)()
		ports := func() (ports []uint16) {
			synctest.Wait()
			for _, b := range n.takeBinds() {
				if b.family == "udp4" {
					ports = append(ports, b.port)
				}
			}
			return ports
		}
		if got, want := ports(), []uint16{41641, 0}; !slices.Equal(got, want) {
			t.Errorf("first bind tried %v, want %v", got, want)
		}
		s.Rebind()
		if got, want := ports(), []uint16{41641, 50000}; !slices.Equal(got, want) {
			t.Errorf("rebind tried %v, want %v", got, want)
		}
		s.SetOptions(Options{Port: 0})
		if got, want := ports(), []uint16{0}; !slices.Equal(got, want) {
			t.Errorf("changed port tried %v, want %v", got, want)
		}
		s.SetOptions(Options{Port: 0})
		if got := ports(); len(got) != 0 {
			t.Errorf("the same options again tried %v, want no rebind", got)
		}
	})
}

// TestOptionsOffload: the offloads are switched as the tailnet asks (PATH-56).
func TestOptionsOffload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		s := New(Config{Network: n, NewReceiver: newDatagrams().receiver})
		defer serve(t, s)()
		for _, o := range []Options{{}, {DisableSegmentation: true}, {DisableCoalescing: true}, {}} {
			s.SetOptions(o)
			synctest.Wait()
			for _, family := range []string{"udp4", "udp6"} {
				c := n.conn(family)
				if c.segmentation == o.DisableSegmentation || c.coalescing == o.DisableCoalescing {
					t.Errorf("%s with %+v: segmentation %v, coalescing %v", family, o, c.segmentation, c.coalescing)
				}
			}
		}
	})
}

// TestOneFamily: either family is enough, and sends of the other are dropped
// and counted (PATH-53).
func TestOneFamily(t *testing.T) {
	for _, missing := range []string{"udp4", "udp6"} {
		synctest.Test(t, func(t *testing.T) {
			n := &fakeNetwork{refuse: func(family string, _ uint16) error {
				if family == missing {
					return syscall.EAFNOSUPPORT
				}
				return nil
			}}
			s := New(Config{Network: n, NewReceiver: newDatagrams().receiver})
			defer serve(t, s)()
			synctest.Wait()
			for _, to := range []transport.Endpoint{peer4, peer6} {
				if err := s.Send(to, single([]byte("x"))); err != nil {
					t.Errorf("without %s, to %v: %v", missing, to.Addr, err)
				}
			}
			if st := s.Stats(); st.Sent != 1 || st.Unbound != 1 {
				t.Errorf("without %s: sent %d, unbound %d; want 1, 1", missing, st.Sent, st.Unbound)
			}
		})
	}
}

// TestNoSocket: without any socket Serve retries by itself.
func TestNoSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := true
		n := &fakeNetwork{refuse: func(string, uint16) error {
			if failing {
				return syscall.EMFILE
			}
			return nil
		}}
		var log bytes.Buffer
		s := New(Config{Network: n, NewReceiver: newDatagrams().receiver, Logger: textLogger(&log)})
		stop := serve(t, s)
		time.Sleep(5 * time.Second)
		if binds := len(n.takeBinds()); binds < 4 || binds > 100 {
			t.Errorf("%d binds in 5 s", binds)
		}
		n.mu.Lock()
		failing = false
		n.mu.Unlock()
		time.Sleep(time.Minute) // longer than the longest pause
		if p4, p6 := s.LocalPorts(); p4 == 0 || p6 == 0 {
			t.Errorf("ports %d and %d after recovery", p4, p6)
		}
		stop()
		if !strings.Contains(log.String(), "too many open files") {
			t.Errorf("log does not name the cause:\n%s", log.String())
		}
	})
}

func TestNoSocketStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNetwork{refuse: func(string, uint16) error { return syscall.EMFILE }}
		s := New(Config{Network: n, NewReceiver: newDatagrams().receiver})
		stop := serve(t, s)
		time.Sleep(time.Second)
		stop()
	})
}

// TestRebindThrottled: a broken socket is replaced, at most every 5 s; being
// asked is not throttled (PATH-58, PATH-59).
func TestRebindThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		s := New(Config{Network: n, NewReceiver: newDatagrams().receiver})
		defer serve(t, s)()
		rebound := func() bool {
			synctest.Wait()
			return len(n.takeBinds()) > 0
		}
		rebound()
		sendBroken := func() {
			n.conn("udp4").failWith(syscall.EPIPE)
			if err := s.Send(peer4, single([]byte("x"))); err != nil {
				t.Errorf("send: %v", err)
			}
		}
		if sendBroken(); rebound() {
			t.Error("rebound right after binding")
		}
		time.Sleep(rebindPause)
		if sendBroken(); !rebound() {
			t.Error("not rebound after the pause")
		}
		if sendBroken(); rebound() {
			t.Error("rebound twice in the pause")
		}
		if s.Rebind(); !rebound() {
			t.Error("not rebound when asked")
		}
		if st := s.Stats(); st.Rebinds != 1 || st.Lost != 3 || st.Sent != 0 {
			t.Errorf("stats %+v; want 1 rebind, 3 lost", st)
		}
	})
}

// TestReceiverPanics: a panic of a receiver ends Serve with an error, not the
// process, and leaves no socket.
func TestReceiverPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		s := New(Config{Network: n, NewReceiver: func() transport.Receiver { return panicking{} }})
		done := make(chan error)
		go func() { done <- s.Serve(t.Context()) }()
		synctest.Wait()
		n.conn("udp6").reads <- read{messages: []host.Message{{Buf: []byte("x"), Segment: 1, From: peer6.Addr}}}
		var p *actor.PanicError
		if err := <-done; !errors.As(err, &p) || p.Value != "boom" {
			t.Errorf("Serve returned %v, want the panic", err)
		}
		if b, _ := s.Bound(); b != (Bound{}) {
			t.Errorf("still bound to %v", b)
		}
	})
}

type panicking struct{}

func (panicking) Receive(transport.Endpoint, []byte, int, int) { panic("boom") }
func (panicking) Flush()                                       {}

// TestDeliver: what a read returns reaches the receiver in the shape of
// transport.Receiver, and the count is right.
func TestDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, d := new(fakeNetwork), newDatagrams()
		s := New(Config{Network: n, NewReceiver: d.receiver})
		defer serve(t, s)()
		synctest.Wait()
		busy(n.conn("udp4"), d)
		before := s.Stats()
		n.conn("udp4").reads <- read{messages: []host.Message{
			{Buf: []byte("aabbc"), Segment: 2, From: peer4.Addr},
			{From: peer4.Addr},
			{Buf: []byte("dddd"), Segment: 4, From: peer4.Addr},
		}}
		want := []datagram{
			{from: peer4, b: []byte("aa"), segment: 2, more: 4},
			{from: peer4, b: []byte("bb"), segment: 2, more: 4},
			{from: peer4, b: []byte("c"), segment: 2, more: 4},
			{from: peer4, b: []byte("dddd"), segment: 0, more: 0},
			{flush: true},
		}
		for i, w := range want {
			g := <-d.got
			if g.from != w.from || !bytes.Equal(g.b, w.b) || g.segment != w.segment || g.more != w.more || g.flush != w.flush {
				t.Errorf("%d: got %+v, want %+v", i, g, w)
			}
		}
		synctest.Wait()
		if st := s.Stats(); st.Received != before.Received+4 || st.ReceivedBytes != before.ReceivedBytes+9 || st.Overflows != 6 {
			t.Errorf("stats %+v; want 4 datagrams of 9 bytes, 6 overflows", st)
		}
	})
}

// TestReadErrors: a read that fails is counted and reading goes on; a socket
// whose reads keep failing is replaced (PATH-59).
func TestReadErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, d := new(fakeNetwork), newDatagrams()
		s := New(Config{Network: n, NewReceiver: d.receiver})
		defer serve(t, s)()
		synctest.Wait()
		time.Sleep(rebindPause)
		c := n.conn("udp4")
		c.reads <- read{err: syscall.EMSGSIZE}
		c.reads <- read{messages: []host.Message{{Buf: []byte("x"), Segment: 1, From: peer4.Addr}}}
		if got := d.next(); string(got.b) != "x" {
			t.Errorf("received %q after a failed read", got.b)
		}
		for range maxReadFailures + 1 {
			c.reads <- read{err: syscall.EIO}
		}
		time.Sleep(time.Minute)
		if n.conn("udp4") == c {
			t.Error("a socket that cannot be read is still in use")
		}
		if st := s.Stats(); st.ReadErrors != maxReadFailures+2 {
			t.Errorf("%d read errors, want %d", st.ReadErrors, maxReadFailures+2)
		}
	})
}

// TestSendAcrossRebind: a sender that holds a closed socket goes on with the
// new one and reports nothing (PATH-58).
func TestSendAcrossRebind(t *testing.T) {
	n := new(fakeNetwork)
	s := New(Config{Network: n, NewReceiver: newDatagrams().receiver})
	c1, _ := n.ListenUDP(t.Context(), "udp4", 1)
	c2, _ := n.ListenUDP(t.Context(), "udp4", 2)
	s.v4.conns[0].Store(rebinding{c1, s.v4, c2})
	c1.Close()
	if err := s.Send(peer4, single([]byte("x"))); err != nil {
		t.Errorf("send: %v", err)
	}
	if got := len(c2.(*fakeConn).sent); got != 1 {
		t.Errorf("%d bursts on the new socket, want 1", got)
	}
}

// A rebinding is a socket that is replaced while a send is in it.
type rebinding struct {
	host.UDPConn
	f    *family
	next host.UDPConn
}

func (r rebinding) WriteBursts(to netip.AddrPort, bursts []burst) error {
	r.f.conns[0].Store(r.next)
	return r.UDPConn.WriteBursts(to, bursts)
}

// TestLoopback: two real sockets talk in both families, in bursts, and go on
// after a rebind.
func TestLoopback(t *testing.T) {
	da, db := newDatagrams(), newDatagrams()
	a := New(Config{Network: host.OS{}, NewReceiver: da.receiver})
	b := New(Config{Network: host.OS{}, NewReceiver: db.receiver})
	for _, s := range []*Socket{a, b} {
		_, changed := s.Bound()
		defer serve(t, s)()
		<-changed
	}
	check := func() {
		t.Helper()
		v4, v6 := b.LocalPorts()
		to := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), v4)}
		if l, err := net.Listen("tcp6", "[::1]:0"); err == nil && v6 != 0 {
			l.Close()
			to = append(to, netip.AddrPortFrom(netip.IPv6Loopback(), v6))
		}
		for _, to := range to {
			buf := append(bytes.Repeat([]byte{1}, 1312), bytes.Repeat([]byte{2}, 1312)...)
			buf = append(buf, bytes.Repeat([]byte{3}, 77)...)
			if err := a.Send(transport.Endpoint{Addr: to}, []burst{{Buf: buf, Size: 1312, Count: 3}}); err != nil {
				t.Fatalf("to %v: %v", to, err)
			}
			for i, size := range []int{1312, 1312, 77} {
				g := db.next()
				if len(g.b) != size || g.b[0] != byte(i+1) || g.from.Addr.Addr() != to.Addr() {
					t.Errorf("datagram %d: %d bytes of %d from %v", i, len(g.b), g.b[0], g.from.Addr)
				}
			}
		}
	}
	check()
	before, _ := b.Bound()
	_, changed := b.Bound()
	b.Rebind()
	<-changed
	if after, _ := b.Bound(); after != before {
		t.Errorf("rebind moved from %v to %v", before, after)
	}
	check()
}
