package portmap

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// A fakeNetwork is a host behind a gateway that does as it is told: for what
// the well-behaved ones of simnet never do.
type fakeNetwork struct {
	host.Network

	route  host.Route
	answer func(to netip.AddrPort, b []byte) []reply // to each datagram
	web    http.Handler                              // at every TCP address; nil refuses

	mu    sync.Mutex
	dials []string
	sent  []reply // from is where they went
}

// A reply is a datagram that comes in after a while.
type reply struct {
	from  netip.AddrPort
	b     []byte
	after time.Duration
}

func newFakeNetwork(answer func(netip.AddrPort, []byte) []reply) *fakeNetwork {
	return &fakeNetwork{
		route:  host.Route{Interface: "eth0", Gateway: testGateway, Source: testOwn},
		answer: answer,
	}
}

func (n *fakeNetwork) DefaultRoute() (host.Route, error) { return n.route, nil }

func (n *fakeNetwork) ListenUDP(_ context.Context, family string, port uint16) (host.UDPConn, error) {
	if family != "udp4" || port != 0 {
		panic("not a fresh IPv4 socket")
	}
	return &fakeConn{n: n, in: make(chan reply, 64), closed: make(chan struct{})}, nil
}

func (n *fakeNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, address)
	n.mu.Unlock()
	if n.web == nil || network != "tcp4" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: context.DeadlineExceeded}
	}
	client, server := net.Pipe()
	go serveOne(server, n.web)
	return client, nil
}

// serveOne answers one request.
func serveOne(c net.Conn, h http.Handler) {
	defer c.Close()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	w.Result().Write(c)
}

// count returns how many datagrams went to a port.
func (n *fakeNetwork) count(port uint16) (k int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sent {
		if s.from.Port() == port {
			k++
		}
	}
	return k
}

type fakeConn struct {
	n      *fakeNetwork
	in     chan reply
	closed chan struct{}
	once   sync.Once
}

func (c *fakeConn) ReadBatch(ms []host.Message) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case r := <-c.in:
		n := copy(ms[0].Buf, r.b)
		ms[0].N, ms[0].Segment, ms[0].From = n, n, r.from
		return 1, nil
	}
}

func (c *fakeConn) WriteBursts(to netip.AddrPort, bursts []packet.Burst) error {
	for _, b := range bursts {
		c.n.mu.Lock()
		d := bytes.Clone(b.Datagram(0))
		c.n.sent = append(c.n.sent, reply{from: to, b: d})
		c.n.mu.Unlock()
		for _, r := range c.n.answer(to, d) {
			deliver := func() { c.in <- r }
			if r.after == 0 { // no timer is due when it is made: https://go.dev/issue/78156
				go deliver()
				continue
			}
			time.AfterFunc(r.after, deliver)
		}
	}
	return nil
}

func (c *fakeConn) LocalAddr() netip.AddrPort { return netip.AddrPortFrom(testOwn, 50001) }

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// serve runs c until stop is called, which waits for its end.
func serve(t *testing.T, c *Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Serve: %v", err)
		}
	})
}

// await waits until the mapping is as ok wants it, for at most d.
func await(t *testing.T, c *Client, d time.Duration, ok func(netip.AddrPort) bool) netip.AddrPort {
	t.Helper()
	return awaitCell(t, c.Mapping(), d, ok)
}

func awaitCell[T any](t *testing.T, cell *actor.Cell[T], d time.Duration, ok func(T) bool) T {
	t.Helper()
	timeout := time.After(d)
	for {
		v, changed := cell.Load()
		if ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("still %v after %v", v, d)
		}
	}
}

func valid(a netip.AddrPort) bool   { return a.IsValid() }
func invalid(a netip.AddrPort) bool { return !a.IsValid() }
