package peerapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netmap"
)

func TestMain(m *testing.M) {
	// Package net makes channels on first use, which must not belong to a bubble.
	broken := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	(&net.Resolver{PreferGo: true, Dial: broken}).LookupHost(context.Background(), "first.example.")
	goleak.VerifyTestMain(m)
}

var (
	we4, we6     = netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a:115c:a1e0::1")
	peer4, peer6 = netip.MustParseAddr("100.64.0.2"), netip.MustParseAddr("fd7a:115c:a1e0::2")
	masq4        = netip.MustParseAddr("100.100.1.1")
	nobody4      = netip.MustParseAddr("192.0.2.7") // behind a subnet router
)

// A world is a server, a peer that asks it, and somebody else, on a network that
// stands for the tunnel.
type world struct {
	t           *testing.T
	net         *simnet.Internet
	us          *simnet.Host
	peer, other *simnet.Host
	server      *Server
	port        uint16

	mu     sync.Mutex
	self   *netmap.Peer
	caller Caller
	others bool // may ask for DNS
	asked  [][]byte
	answer func(ctx context.Context, message []byte) ([]byte, error)

	stop    context.CancelFunc
	serving sync.WaitGroup
	starts  int
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		port, err := w.server.Open(we4)
		if err != nil {
			t.Fatal(err)
		}
		w.port = port
		test(t, w)
	})
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: simnet.New(1), self: newNode(1, "we.tail.ts.net.", we4, we6), caller: Caller{
		Node: newNode(2, "peer.tail.ts.net.", peer4, peer6),
		User: netmap.UserProfile{ID: 7, LoginName: "ada@example.com", DisplayName: "Ada <b>"},
	}}
	add := func(name string, addrs ...netip.Addr) *simnet.Host {
		return w.net.AddHost(name, simnet.HostConfig{Addrs: addrs})
	}
	w.us, w.peer, w.other = add("we", we4, we6), add("peer", peer4, peer6), add("else", nobody4)
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.answer = func(_ context.Context, q []byte) ([]byte, error) { return q, nil }
	w.server = New(Config{
		Self:   func() *netmap.Peer { w.mu.Lock(); defer w.mu.Unlock(); return w.self },
		Listen: w.listen,
		Start: func() {
			w.starts++
			w.serving.Go(func() {
				if err := w.server.Serve(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
					t.Errorf("Serve: %v", err)
				}
			})
		},
		WhoIs:       w.whoIs,
		QueryDNS:    w.query,
		MayQueryDNS: func(netip.Addr) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.others },
		Logger:      slog.New(slog.DiscardHandler),
	})
	return w
}

func newNode(id netmap.NodeID, name string, addrs ...netip.Addr) *netmap.Peer {
	p := &netmap.Peer{ID: id, StableID: netmap.StableID(name), Name: name, User: 7}
	for _, a := range addrs {
		p.Addresses = append(p.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	return p
}

func (w *world) close() {
	w.stop()
	w.server.Close()
	w.serving.Wait()
	w.net.Close()
}

// A told is a listener whose Notify calls at once.
type told struct{ net.Listener }

func (told) Notify(f func()) { f() }

func (w *world) listen(port uint16) (Listener, error) {
	ln, err := w.us.Listen(context.Background(), "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), port).String())
	if err != nil {
		return nil, err
	}
	return told{ln}, nil
}

func (w *world) whoIs(c net.Conn) (Caller, bool) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.caller, from != nobody4
}

func (w *world) query(ctx context.Context, message []byte) ([]byte, error) {
	w.mu.Lock()
	w.asked = append(w.asked, message)
	answer := w.answer
	w.mu.Unlock()
	return answer(ctx, message)
}

// change changes what the world is while nobody looks.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// client returns a client on a host; http2 has it speak cleartext HTTP/2.
func (w *world) client(from *simnet.Host, http2 bool) *http.Transport {
	tr := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return from.Dial(ctx, "tcp", netip.AddrPortFrom(we4, w.port).String())
		},
	}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	return tr
}

// A response is what came of a request.
type response struct {
	status int
	header http.Header
	body   string
	proto  string
}

// An option changes a request.
type option func(*http.Request)

func withHeader(name, value string) option {
	return func(r *http.Request) { r.Header[name] = []string{value} }
}

func withHost(host string) option { return func(r *http.Request) { r.Host = host } }

// do sends a request of the peer; body is nil for none.
func (w *world) do(method, path string, body []byte, options ...option) response {
	w.t.Helper()
	return w.doBy(w.client(w.peer, false), method, path, body, options...)
}

func (w *world) doBy(tr *http.Transport, method, path string, body []byte, options ...option) response {
	w.t.Helper()
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://peer"+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range options {
		o(req)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return response{body: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return response{body: err.Error()}
	}
	return response{resp.StatusCode, resp.Header, strings.TrimSuffix(string(b), "\n"), resp.Proto}
}

// raw sends bytes on a connection of its own, and returns what comes until it is
// closed, and after how long.
func (w *world) raw(from *simnet.Host, send string) (string, time.Duration) {
	w.t.Helper()
	began := time.Now()
	c, err := from.Dial(w.t.Context(), "tcp", netip.AddrPortFrom(we4, w.port).String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, send)
	b, _ := io.ReadAll(c)
	return string(b), time.Since(began).Round(time.Second)
}
