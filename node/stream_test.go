package node

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
)

// streamStall is the longest time a TCP stream may stand still when its path has
// died (paths.md section 15, scenario 5).
const streamStall = 6500 * time.Millisecond

// TestStreamChangesPaths sends a TCP stream through whole nodes while UDP is
// blocked, is free again, and a node moves: every byte comes back as it was sent,
// in one WireGuard session. It takes real time, and sleeps for as long as each
// condition is to last: netstack's goroutines are never idle in the eyes of a
// bubble.
func TestStreamChangesPaths(t *testing.T) {
	t.Parallel()
	g := newGround(t, devnet.Config{})
	defer g.close()
	withStack := func(n *Node) { n.seams.overlay = nil }
	a, ar := g.behind(easy, withStack)
	b, _ := g.behind(easy, withStack)
	other := easy
	other.LAN = netip.MustParsePrefix("10.1.1.0/24")
	cafe := g.net.AddRouter("cafe", other)

	s := newStream(t, a, b)
	until(t, 2*time.Second, func() bool { return a.direct(b) && b.direct(a) })
	time.Sleep(time.Second)
	handshake := a.handshake(b)
	for _, phase := range []struct {
		name   string
		change func()
		direct time.Duration // how soon the path must be direct again; 0: not
	}{
		{"UDP blocked", func() { ar.SetLink(simnet.Conditions{Delay: 5 * time.Millisecond, NoUDP: true}) }, 0},
		{"UDP free", func() { ar.SetLink(wide) }, 7 * time.Second},
		{"moved", func() { a.host.Move(cafe) }, 10 * time.Second},
	} {
		s.stall.Store(0)
		phase.change()
		began := time.Now()
		if phase.direct == 0 {
			time.Sleep(8 * time.Second)
		} else {
			time.Sleep(2 * time.Second)
			until(t, phase.direct, func() bool { return a.direct(b) && b.direct(a) })
			before := s.total.Load()
			until(t, 2*streamStall, func() bool { return s.total.Load() > before })
		}
		stall := time.Duration(s.stall.Load())
		t.Logf("%s: longest stall %v; after %v direct %v", phase.name, stall, time.Since(began), a.direct(b))
		if stall > streamStall || phase.direct == 0 && a.direct(b) {
			t.Errorf("%s: stall %v, direct %v", phase.name, stall, a.direct(b))
		}
	}
	s.finish(t)
	if t.Failed() {
		for _, m := range []*member{a, b} {
			p := m.run.plane.Load()
			t.Logf("%s: data %+v, stack %+v, relays %+v, sockets %+v", m.Hostname, p.data.Stats(), m.run.stack.Stats(), p.relays.Counters(), p.socket.Stats())
		}
	}
	if a.handshake(b) != handshake {
		t.Error("the session was reset")
	}
}

// A stream sends random bytes to an echo and compares what comes back.
type stream struct {
	conn  net.Conn
	stop  atomic.Bool
	stall atomic.Int64 // longest time between two reads, nanoseconds
	total atomic.Int64
	sent  chan error
	done  chan error
}

func newStream(t *testing.T, from, to *member) *stream {
	t.Helper()
	ln, err := to.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to.addr, 7).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{conn: c, sent: make(chan error, 1), done: make(chan error, 1)}
	go func() { s.sent <- s.write() }()
	go func() { s.done <- s.read(t) }()
	return s
}

// write sends 8 kB every 5 ms until stop.
func (s *stream) write() error {
	random, b := rand.NewChaCha8([32]byte{}), make([]byte, 8<<10)
	for !s.stop.Load() {
		random.Read(b)
		if _, err := s.conn.Write(b); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return s.conn.(interface{ CloseWrite() error }).CloseWrite()
}

// read compares until the end of the stream.
func (s *stream) read(t *testing.T) error {
	random, got, want := rand.NewChaCha8([32]byte{}), make([]byte, 8<<10), make([]byte, 8<<10)
	for {
		began := time.Now()
		n, err := io.ReadFull(s.conn, got)
		if took := time.Since(began); took > time.Duration(s.stall.Load()) {
			s.stall.Store(int64(took))
		}
		if err == io.EOF {
			return nil
		}
		random.Read(want)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("after %d bytes: %d more, %v", s.total.Load(), n, err)
			return err
		}
		s.total.Add(int64(n))
	}
}

// finish ends the stream and waits until all has come back.
func (s *stream) finish(t *testing.T) {
	t.Helper()
	s.stop.Store(true)
	for _, c := range []chan error{s.sent, s.done} {
		select {
		case err := <-c:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the stream does not end")
		}
	}
	s.conn.Close()
	t.Logf("%d bytes came back", s.total.Load())
}
