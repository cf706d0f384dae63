package relayd

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
)

// tlsVersions are what a client may speak; older ones are refused (DERP-151).
var tlsVersions = []struct {
	number uint16
	label  string
}{{tls.VersionTLS12, "1.2"}, {tls.VersionTLS13, "1.3"}}

// tlsCounts count requests and open connections by TLS version, in the order of
// tlsVersions (DERP-84). A connection counts from its first request on.
type tlsCounts struct {
	requests, active [2]atomic.Int64
}

// listen returns ln with connections that tell when they end.
func (t *tlsCounts) listen(ln net.Listener) net.Listener { return tlsCounter{ln, t} }

type tlsCounter struct {
	net.Listener
	counts *tlsCounts
}

// Accept implements net.Listener.
func (l tlsCounter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: c, counts: l.counts}, nil
}

// connClosed is the state of a countedConn that does not count any more.
const connClosed = -1

// A countedConn is a connection below TLS, which is counted while it is open.
type countedConn struct {
	net.Conn
	counts *tlsCounts
	state  atomic.Int32 // 0, 1 + index of the version, or connClosed
}

// note counts the connection once its version is known.
func (c *countedConn) note(version int) {
	if c.state.CompareAndSwap(0, int32(version)+1) {
		c.counts.active[version].Add(1)
	}
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	if was := c.state.Swap(connClosed); was > 0 {
		c.counts.active[was-1].Add(-1)
	}
	return c.Conn.Close()
}

// NetConn returns the connection of the operating system, as tls.Conn does.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// connKey is the context key of a request's countedConn.
type connKey struct{}

// connContext is the ConnContext of the main HTTP server.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		return context.WithValue(ctx, connKey{}, t.NetConn())
	}
	return ctx
}

// count counts requests that pass through to next.
func (t *tlsCounts) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*countedConn); ok && r.TLS != nil {
			t.request(c, r.TLS.Version)
		}
		next.ServeHTTP(w, r)
	})
}

func (t *tlsCounts) request(c *countedConn, version uint16) {
	for i, v := range tlsVersions {
		if v.number == version {
			t.requests[i].Add(1)
			c.note(i)
		}
	}
}

// byTLSVersion returns counts with their labels.
func byTLSVersion(counts *[2]atomic.Int64) map[string]int64 {
	m := make(map[string]int64)
	for i, v := range tlsVersions {
		m[v.label] = counts[i].Load()
	}
	return m
}
