package simnet

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
)

// inBubble runs f on an internet in a bubble.
func inBubble(t *testing.T, f func(t *testing.T, n *Internet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		f(t, n)
	})
}

// A socket is a UDP socket under test.
type socket struct {
	t    testing.TB
	host *Host
	conn *udpConn
	ms   []host.Message
}

func listen(t testing.TB, h *Host, family string, port uint16) *socket {
	t.Helper()
	c, err := h.ListenUDP(context.Background(), family, port)
	if err != nil {
		t.Fatalf("%s: listen: %v", h.name, err)
	}
	c.(*udpConn).joining = false // one read, one datagram
	return &socket{t: t, host: h, conn: c.(*udpConn), ms: []host.Message{{Buf: make([]byte, 64<<10)}}}
}

func listen4(t testing.TB, h *Host) *socket {
	t.Helper()
	return listen(t, h, "udp4", 0)
}

// addr returns where the socket is to be found from its own network.
func (s *socket) addr() netip.AddrPort {
	return netip.AddrPortFrom(s.host.first(s.conn.six), s.conn.port)
}

func single(b []byte) []packet.Burst { return []packet.Burst{{Buf: b, Size: len(b), Count: 1}} }

func (s *socket) trySend(to netip.AddrPort, text string) error {
	return s.conn.WriteBursts(to, single([]byte(text)))
}

func (s *socket) send(to netip.AddrPort, text string) {
	s.t.Helper()
	if err := s.trySend(to, text); err != nil {
		s.t.Fatalf("%s sends to %v: %v", s.host.name, to, err)
	}
}

// waiting reports whether there is something to be read.
func (s *socket) waiting() bool {
	s.host.net.acquire()
	defer s.host.net.release()
	return s.conn.head < len(s.conn.queue)
}

// patience is how long a test waits for a datagram, in its bubble.
const patience = 2 * time.Second

// receive returns the next datagram, and none if none comes.
func (s *socket) receive() (text string, from netip.AddrPort) {
	s.t.Helper()
	for range 20 {
		if s.waiting() {
			break
		}
		time.Sleep(patience / 20)
	}
	if !s.waiting() {
		return "", netip.AddrPort{}
	}
	if _, err := s.conn.ReadBatch(s.ms); err != nil {
		s.t.Fatalf("%s: read: %v", s.host.name, err)
	}
	return string(s.ms[0].Buf[:s.ms[0].N]), s.ms[0].From
}

func (s *socket) expect(text string) (from netip.AddrPort) {
	s.t.Helper()
	got, from := s.receive()
	if got != text {
		s.t.Fatalf("%s received %q from %v, want %q", s.host.name, got, from, text)
	}
	return from
}

func (s *socket) expectNothing() {
	s.t.Helper()
	if got, from := s.receive(); got != "" {
		s.t.Fatalf("%s received %q from %v, want nothing", s.host.name, got, from)
	}
}

// expectFate fails unless that many packets have met that fate since the test
// began.
func expectFate(t *testing.T, at interface{ Counters() Counters }, f Fate, want uint64) {
	t.Helper()
	if c := at.Counters(); c[f] != want {
		t.Errorf("%v: %d packets were %v, want %d (all: %v)", at, c[f], f, want, c)
	}
}

func at(h *Host, port uint16) netip.AddrPort { return netip.AddrPortFrom(h.Addr4(), port) }

func long(n int) string { return strings.Repeat("x", n) }

func burst(size, count, last int) packet.Burst {
	b := packet.Burst{Size: size, Count: count}
	for i := range count {
		n := size
		if i == count-1 {
			n = last
		}
		b.Buf = append(b.Buf, bytes.Repeat([]byte{byte(i + 1)}, n)...)
	}
	return b
}
