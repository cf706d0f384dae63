package udp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeNetwork hands out fakeConns, so that sockets fail on demand and the
// clock of a bubble moves. Nothing but ListenUDP works.
type fakeNetwork struct {
	host.Network

	mu     sync.Mutex
	refuse func(family string, port uint16) error // nil accepts
	binds  []bind
	conns  map[string]*fakeConn // latest by family
}

// A bind is one call of ListenUDP.
type bind struct {
	family string
	port   uint16
}

func (n *fakeNetwork) ListenUDP(_ context.Context, family string, port uint16) (host.UDPConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.binds = append(n.binds, bind{family, port})
	if n.refuse != nil {
		if err := n.refuse(family, port); err != nil {
			return nil, err
		}
	}
	if port == 0 {
		port = 50000
	}
	addr := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if family == "udp6" {
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	c := newFakeConn(addr)
	if n.conns == nil {
		n.conns = make(map[string]*fakeConn)
	}
	n.conns[family] = c
	return c, nil
}

func (n *fakeNetwork) conn(family string) *fakeConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns[family]
}

// takeBinds returns the calls since the last time.
func (n *fakeNetwork) takeBinds() []bind {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.binds
	n.binds = nil
	return b
}

// A read is what one ReadBatch returns.
type read struct {
	messages []host.Message
	err      error
}

// A fakeConn reads what is put into reads and keeps what is sent.
type fakeConn struct {
	addr   netip.AddrPort
	reads  chan read
	closed chan struct{}
	once   sync.Once

	mu                       sync.Mutex
	shares                   []*fakeConn // made by Share
	maxShares                int         // that Share makes before it fails
	fail                     error       // of WriteBursts
	sent                     []packet.Burst
	segmentation, coalescing bool
}

func newFakeConn(addr netip.AddrPort) *fakeConn {
	return &fakeConn{addr: addr, reads: make(chan read, 100), closed: make(chan struct{}), maxShares: 100, segmentation: true, coalescing: true}
}

func (c *fakeConn) Share(context.Context) (host.UDPConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.shares) == c.maxShares {
		return nil, errNoShare
	}
	c.shares = append(c.shares, newFakeConn(c.addr))
	return c.shares[len(c.shares)-1], nil
}

var errNoShare = errors.New("port may not be shared")

// all returns the socket and what it shares its port with.
func (c *fakeConn) all() []*fakeConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*fakeConn{c}, c.shares...)
}

func (c *fakeConn) ReadBatch(ms []host.Message) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case r := <-c.reads:
		if len(r.messages) > len(ms) {
			panic("a read of more messages than asked for: see busy")
		}
		for i, m := range r.messages {
			ms[i].N = copy(ms[i].Buf, m.Buf)
			ms[i].Segment, ms[i].From = m.Segment, m.From
		}
		return len(r.messages), r.err
	}
}

func (c *fakeConn) WriteBursts(_ netip.AddrPort, bursts []packet.Burst) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	if c.fail != nil {
		return c.fail
	}
	for _, b := range bursts {
		b.Buf = bytes.Clone(b.Buf)
		c.sent = append(c.sent, b)
	}
	return nil
}

func (c *fakeConn) failWith(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

func (c *fakeConn) SetOffload(segmentation, coalescing bool) error {
	c.segmentation, c.coalescing = segmentation, coalescing
	return nil
}

func (c *fakeConn) Overflows() uint32         { return 3 }
func (c *fakeConn) LocalAddr() netip.AddrPort { return c.addr }

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// A datagrams is a Receiver that splits what it gets and passes it on.
type datagrams struct{ got chan datagram }

type datagram struct {
	from    transport.Endpoint
	b       []byte
	segment int // as Receive was told
	more    int
	flush   bool // the end of a batch
}

func newDatagrams() *datagrams { return &datagrams{make(chan datagram, 1000)} }

func (d *datagrams) receiver() transport.Receiver { return d }

func (d *datagrams) Receive(from transport.Endpoint, b []byte, segment, more int) {
	step := segment
	if step == 0 {
		step = len(b)
	}
	for len(b) > 0 {
		n := min(step, len(b))
		d.got <- datagram{from: from, b: bytes.Clone(b[:n]), segment: segment, more: more}
		b = b[n:]
	}
}

func (d *datagrams) Flush() { d.got <- datagram{flush: true} }

// next returns the next datagram, past the ends of batches.
func (d *datagrams) next() datagram {
	for {
		if g := <-d.got; !g.flush {
			return g
		}
	}
}

// serve runs s until the test ends, which fails unless Serve returns the
// context's error.
func serve(t *testing.T, s *Socket) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v, want context.Canceled", err)
		}
	})
}

func textLogger(w *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(&lockedBuffer{b: w}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func single(b []byte) []packet.Burst { return []packet.Burst{{Buf: b, Size: len(b), Count: 1}} }
