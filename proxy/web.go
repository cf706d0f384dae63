package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// An Identity is who of the tailnet has opened a connection. A node with tags
// belongs to nobody.
type Identity struct {
	Login, Name, ProfilePic string // of the user; the picture is a URL
	Tagged                  bool
}

// Headers that tell a target of HTTP requests who asks (SVC-101), and where that is
// explained.
const (
	headerLogin   = "Tailscale-User-Login"
	headerName    = "Tailscale-User-Name"
	headerPicture = "Tailscale-User-Profile-Pic"
	headerInfo    = "Tailscale-Headers-Info"
	infoURL       = "https://tailscale.com/s/serve-headers"

	headerPrefix = "tailscale-" // of all of them, and of others to come
)

// Limits of HTTP servers that face strangers.
const (
	readHeaderTimeout = 15 * time.Second // for the header of a request, and the first byte of a connection (SVC-166)
	idleTimeout       = 3 * time.Minute  // between requests
	maxHeader         = 64 << 10         // bytes
	maxResponseHeader = 1 << 20          // bytes
	bodyBuffer        = 32 << 10         // bytes of a body that are copied at a time
	maxIdleBackends   = 256              // connections kept for the next request
)

// A webServer serves HTTP on connections that it is handed.
type webServer struct {
	server    http.Server
	handed    *carry.Handed
	transport *http.Transport // by which the handler asks others
}

func newWebServer(h http.Handler, transport *http.Transport, addr net.Addr, log *slog.Logger) *webServer {
	return &webServer{
		handed: carry.NewHanded(addr), transport: transport,
		server: http.Server{
			Handler: h, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
			ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		},
	}
}

// connKey is the context's key of a request's connection.
type connKey struct{}

// serve serves until ctx ends. What it serves then is for the acceptor to end.
func (w *webServer) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.handed.Close() })
	defer stop()
	w.server.BaseContext = func(net.Listener) context.Context { return ctx }
	if err := w.server.Serve(w.handed); ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}

// runWith runs an acceptor that hands connections to w, which asks others by way of
// transport.
func (w *webServer) runWith(ctx context.Context, a *carry.Acceptor) error {
	defer w.transport.CloseIdleConnections()
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go(w.serve)
		return a.Serve(ctx)
	})
}

// drain ends listening, and the connections between two requests.
func (w *webServer) drain(a *carry.Acceptor) {
	a.Drain()
	w.server.SetKeepAlivesEnabled(false)
}

// newTransport returns what asks servers, over connections that dial makes.
func newTransport(dial Dial) *http.Transport {
	return &http.Transport{
		DialContext: dial, DisableCompression: true, MaxIdleConns: maxIdleBackends, IdleConnTimeout: idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
}

// newReverseProxy returns what passes requests on, as they are but for rewrite.
func newReverseProxy(rewrite func(*httputil.ProxyRequest), to http.RoundTripper, log *slog.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: to, FlushInterval: -1, BufferPool: bodyBuffers,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// bodyBuffers are lent to the copying of bodies.
var bodyBuffers = &bodyPool{sync.Pool{New: func() any { return new([bodyBuffer]byte) }}}

type bodyPool struct{ pool sync.Pool }

// Get returns a buffer.
func (p *bodyPool) Get() []byte { return p.pool.Get().(*[bodyBuffer]byte)[:] }

// Put takes it back.
func (p *bodyPool) Put(b []byte) { p.pool.Put((*[bodyBuffer]byte)(b)) }

// A webForward forwards HTTP requests from the tailnet to a target, and tells it
// who asks.
type webForward struct {
	acceptor carry.Acceptor
	web      *webServer
	whoIs    func(net.Conn) (Identity, error)
	target   string
	log      *slog.Logger
	*tally
}

func newWebForward(ln net.Listener, c *Config, s Spec, t *tally) *webForward {
	f := &webForward{whoIs: c.WhoIs, target: s.Target, log: c.Logger, tally: t}
	network, address := split("tcp", s.Target)
	transport := newTransport(func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
		defer cancel()
		return c.dialHost(ctx, network, address)
	})
	transport.MaxIdleConnsPerHost = maxIdleBackends // there is but one
	proxy := newReverseProxy(f.rewrite, transport, c.Logger)
	proxy.ErrorHandler = f.unreachable
	f.web = newWebServer(proxy, transport, ln.Addr(), c.Logger)
	f.acceptor = carry.Acceptor{Listener: ln, Limit: t.limit, Log: c.Logger, Handle: f.handle}
	return f
}

// Addr is where the forward listens.
func (f *webForward) Addr() net.Addr { return f.acceptor.Listener.Addr() }

// Serve forwards until ctx ends.
func (f *webForward) Serve(ctx context.Context) error { return f.web.runWith(ctx, &f.acceptor) }

func (f *webForward) drain() { f.web.drain(&f.acceptor) }

func (f *webForward) handle(ctx context.Context, c net.Conn) {
	f.total.Add(1)
	f.web.handed.Hand(ctx, &meteredConn{c, &f.traffic.In, &f.traffic.Out})
}

// rewrite makes the request for the target: what its client says of who it is goes,
// and what we know of that comes in its place.
func (f *webForward) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "target"
	r.Out.URL.RawQuery = r.In.URL.RawQuery // not ours to correct
	r.Out.Host = r.In.Host
	stripIdentity(r.Out.Header)
	r.SetXForwarded()
	r.Out.Trailer = nil // it could say who, too
	c, ok := r.In.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return
	}
	who, err := f.whoIs(carry.Unwrap(c))
	if err != nil || who.Tagged || who.Login == "" {
		return // SVC-102
	}
	for name, value := range map[string]string{headerLogin: who.Login, headerName: who.Name, headerPicture: who.ProfilePic} {
		if value != "" {
			r.Out.Header.Set(name, mime.QEncoding.Encode("utf-8", value))
		}
	}
	r.Out.Header.Set(headerInfo, infoURL)
}

// identifying are beginnings of the names of headers that tell who asks.
var identifying = []string{headerPrefix, "x-forwarded-", "forwarded", "x-real-ip"}

// stripIdentity removes all headers that a target might take for ours: many see no
// difference between a hyphen and an underscore (RFC 3875 section 4.1.18).
func stripIdentity(h http.Header) {
	for name := range h {
		plain := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		if slices.ContainsFunc(identifying, func(begin string) bool { return strings.HasPrefix(plain, begin) }) {
			delete(h, name)
		}
	}
}

// unreachable answers a request that the target did not.
func (f *webForward) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	abortIfEnded(err)
	f.fail(f.log, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err), "listen", f.Addr(), "target", f.target)
	http.Error(w, "the service behind this address does not answer", http.StatusBadGateway)
}

// abortIfEnded ends a request without an answer if its client has gone, or the forward
// is ending: a handler that only returns says that all went well.
func abortIfEnded(err error) {
	if errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // as package net/http wants it
	}
}

// A meteredConn counts what passes.
type meteredConn struct {
	net.Conn
	read, written *atomic.Uint64 // bytes
}

// NetConn returns the connection that is counted.
func (m *meteredConn) NetConn() net.Conn { return m.Conn }

// CloseWrite ends writing, where the connection can do so; else all of it.
func (m *meteredConn) CloseWrite() error { return carry.CloseWrite(m.Conn) }

func (m *meteredConn) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.read.Add(uint64(n))
	return n, err
}

func (m *meteredConn) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.written.Add(uint64(n))
	return n, err
}
