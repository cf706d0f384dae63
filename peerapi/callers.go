package peerapi

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netmap"
)

// callers accepts the connections of peers, and closes those of others without an
// answer (SVC-86), as those for which there is no room.
type callers struct {
	net.Listener
	server *Server
	ctx    context.Context // of Serve; connections end with it

	alive sync.WaitGroup // goroutines of net/http, one for each connection

	mu  sync.Mutex
	all int
	of  map[netmap.StableID]int // connections of each node; bounded by maxConns

	asking map[netmap.StableID]int // requests under way of each node; bounded by maxRequests
}

func newCallers(ctx context.Context, s *Server, ln net.Listener) *callers {
	return &callers{Listener: ln, server: s, ctx: ctx, of: make(map[netmap.StableID]int), asking: make(map[netmap.StableID]int)}
}

// Accept returns the next connection, a *conn.
func (l *callers) Accept() (net.Conn, error) {
	count := &l.server.count
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		count.connections.Add(1)
		caller, known := l.server.config.WhoIs(inner)
		switch {
		case !known:
			count.strangers.Add(1)
			l.server.config.Logger.Debug("peerAPI: a connection of nobody on the tailnet was closed", "from", inner.RemoteAddr())
		case !l.enter(caller.Node.StableID):
			count.crowded.Add(1)
			l.server.config.Logger.Debug("peerAPI: too many connections", "from", inner.RemoteAddr())
		default:
			c := &conn{Conn: host.Conn{Inner: inner}, caller: caller, callers: l}
			c.forget = context.AfterFunc(l.ctx, func() { inner.Close() })
			l.alive.Add(1)
			return c, nil
		}
		inner.Close()
	}
}

// connState notes that net/http is done with a connection.
func (l *callers) connState(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		l.alive.Done()
	}
}

// enter counts a connection of a node, if there is room for it.
func (l *callers) enter(id netmap.StableID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == maxConns || l.of[id] == maxConnsOfPeer {
		return false
	}
	l.all++
	l.of[id]++
	return true
}

func (l *callers) leave(id netmap.StableID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[id]--; l.of[id] == 0 {
		delete(l.of, id)
	}
}

// ask counts a request of a node, if it may have one more under way.
func (l *callers) ask(id netmap.StableID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking[id] == maxRequestsOf {
		return false
	}
	l.asking[id]++
	return true
}

func (l *callers) answered(id netmap.StableID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking[id]--; l.asking[id] == 0 {
		delete(l.asking, id)
	}
}

// A conn is a connection of a peer.
type conn struct {
	host.Conn
	caller  Caller
	callers *callers
	forget  func() bool // that Serve's context closes it
	closing sync.Once
}

// Close closes the connection.
func (c *conn) Close() error {
	c.closing.Do(func() {
		c.forget()
		c.callers.leave(c.caller.Node.StableID)
	})
	return c.Inner.Close()
}

// connKey is the context's key of a request's *conn.
type connKey struct{}

// connContext lets handle know who asks.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
