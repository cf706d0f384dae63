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
	"strings"
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
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
			defer cancel()
			return c.dialHost(ctx, network, address)
		},
		DisableCompression: true, MaxIdleConns: maxIdleBackends, MaxIdleConnsPerHost: maxIdleBackends, IdleConnTimeout: idleTimeout,
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: f.rewrite, Transport: transport, ErrorHandler: f.unreachable,
		FlushInterval: -1, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
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
	r.SetXForwarded()
	stripIdentity(r.Out.Header)
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

// stripIdentity removes all headers that a target might take for ours: many see no
// difference between a hyphen and an underscore (RFC 3875 section 4.1.18).
func stripIdentity(h http.Header) {
	for name := range h {
		if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), headerPrefix) {
			delete(h, name)
		}
	}
}

// unreachable answers a request that the target did not.
func (f *webForward) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		return // the client has gone
	}
	f.fail(f.log, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err), "listen", f.Addr(), "target", f.target)
	http.Error(w, "the service behind this address does not answer", http.StatusBadGateway)
}

// A meteredConn counts what passes.
type meteredConn struct {
	net.Conn
	read, written *atomic.Uint64 // bytes
}

// NetConn returns the connection that is counted.
func (m *meteredConn) NetConn() net.Conn { return m.Conn }

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
