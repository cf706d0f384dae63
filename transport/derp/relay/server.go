// Package relay is the DERP server: it passes packets between clients named by
// their node keys, over connections that someone else has accepted.
//
// It owns the registry of clients, their queues and what drops from them. It
// opens no socket: [Server.Handler] takes connections from an http.Server,
// [Server.Accept] from anything else. Mesh links, client verification and
// receive limits are not here yet.
//
// Source: doc/protocol/derp.md sections 6, 8 and 10.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// Defaults and times of a server.
const (
	// DefaultWriteTimeout is how long a client may take to accept one write
	// before it is disconnected (DERP-61).
	DefaultWriteTimeout = 2 * time.Second
	// DefaultQueueDepth is how many packets of each kind wait for one client
	// (DERP-52).
	DefaultQueueDepth = 32

	loginTimeout    = 10 * time.Second // for each half of the login; DERP-22
	keepAlive       = 60 * time.Second // DERP-58
	keepAliveJitter = 5 * time.Second

	maxClientInfo = 256 << 10 // bytes; DERP-08
	maxPing       = 1000      // bytes; DERP-08
)

// Options are what a server may be told beside its key. The zero Options are
// the defaults.
type Options struct {
	WriteTimeout time.Duration // 0 = DefaultWriteTimeout, negative = none
	Logger       *slog.Logger  // nil discards

	// QueueDepth is how many packets of each kind wait for one client; 0 =
	// DefaultQueueDepth. A relay that shares few cores with its clients loses
	// less with 256.
	QueueDepth int
}

// ErrClosed is what Accept returns on a server that is closed.
var ErrClosed = errors.New("relay: server is closed")

// A Server is one relay.
type Server struct {
	private      key.NodePrivate
	public       key.NodePublic
	metaCert     []byte
	writeTimeout time.Duration
	queueDepth   int
	log          *slog.Logger

	registry registry
	stats    stats

	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]*client // nil while logging in
	accepts sync.WaitGroup
}

// New returns a server with the given key. It does not listen.
func New(private key.NodePrivate, o Options) *Server {
	s := &Server{
		private:      private,
		public:       private.Public(),
		writeTimeout: o.WriteTimeout,
		queueDepth:   o.QueueDepth,
		log:          o.Logger,
		conns:        make(map[net.Conn]*client),
	}
	if s.writeTimeout == 0 {
		s.writeTimeout = DefaultWriteTimeout
	}
	if s.queueDepth <= 0 {
		s.queueDepth = DefaultQueueDepth
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.metaCert = newMetaCert(s.public, time.Now())
	s.registry.init()
	return s
}

// PublicKey returns the server's key.
func (s *Server) PublicKey() key.NodePublic { return s.public }

// An Incoming is a connection that a client has opened.
type Incoming struct {
	Conn      net.Conn
	Pending   []byte         // what was already read from Conn
	Response  []byte         // written in front of the first frame, in the same write
	Remote    netip.AddrPort // the client's address; invalid when unknown
	IdealNode string         // the node the client would rather have reached; empty = this one
}

// Accept runs one client until it disconnects, ctx ends or the server is
// closed, and closes its connection. A client that goes by itself is no error.
func (s *Server) Accept(ctx context.Context, in Incoming) error {
	if !s.begin(in.Conn) {
		in.Conn.Close()
		return ErrClosed
	}
	defer s.accepts.Done()
	defer s.end(in.Conn)
	s.stats.accepts.Add(1)
	stop := context.AfterFunc(ctx, func() { hangUp(in.Conn) })
	defer stop()
	err := actor.Guard(ctx, func(ctx context.Context) error { return s.serve(ctx, in) })
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// begin notes a connection so that Close ends it; false when it is too late.
func (s *Server) begin(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = nil
	s.accepts.Add(1)
	return true
}

func (s *Server) end(c net.Conn) {
	hangUp(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// hangUp closes the transport below TLS: a farewell of TLS could block.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}

// Close ends all connections and waits until every Accept has returned. It may
// be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		hangUp(c)
	}
	s.mu.Unlock()
	s.accepts.Wait()
	return nil
}

// Shutdown tells all clients that the server restarts, and closes it when they
// have been told or ctx ends. Each is asked to wait for a random part of spread
// before it reconnects, and to try for tryFor (DERP-17).
func (s *Server) Shutdown(ctx context.Context, spread, tryFor time.Duration) error {
	s.mu.Lock()
	var told []<-chan struct{}
	for _, c := range s.conns {
		if c != nil {
			told = append(told, c.restarting(spread, tryFor))
		}
	}
	s.mu.Unlock()
	for _, ch := range told {
		select {
		case <-ch:
		case <-ctx.Done():
		}
	}
	return s.Close()
}

// serve runs the login and then the client.
func (s *Server) serve(ctx context.Context, in Incoming) error {
	c, err := s.login(in)
	if err != nil {
		return err
	}
	s.join(c)
	defer s.leave(c)
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		stop := context.AfterFunc(ctx, func() { hangUp(c.conn) }) // ends a reader whose sender has failed
		defer stop()
		defer hangUp(c.conn) // frees a sender that is writing
		if err := s.sendServerInfo(c); err != nil {
			return err
		}
		g.Go(c.send)
		return c.read()
	})
}

// join makes the client known.
func (s *Server) join(c *client) {
	s.mu.Lock()
	s.conns[c.conn] = c
	s.mu.Unlock()
	s.registry.add(c)
}

// login is the server's part of the login up to the client's key (DERP-22).
func (s *Server) login(in Incoming) (*client, error) {
	in.Conn.SetDeadline(time.Now().Add(loginTimeout))
	if _, err := in.Conn.Write(derp.AppendServerKey(in.Response, s.public)); err != nil {
		return nil, fmt.Errorf("relay: write server key: %w", err)
	}
	in.Conn.SetDeadline(time.Now().Add(loginTimeout))
	frames := derp.NewFrameReader(in.Conn, in.Pending)
	t, n, err := frames.Header()
	if err != nil {
		return nil, err
	}
	if t != derp.FrameClientInfo || n > maxClientInfo {
		return nil, fmt.Errorf("relay: first frame is %v of %d bytes, want %v", t, n, derp.FrameClientInfo)
	}
	b, err := frames.Payload(n)
	if err != nil {
		return nil, err
	}
	public, info, err := derp.ParseClientInfo(s.private, b)
	if err != nil {
		return nil, err
	}
	in.Conn.SetDeadline(time.Time{})
	return newClient(s, in, frames, public, info), nil
}

// sendServerInfo completes the login, before any other frame (DERP-23).
func (s *Server) sendServerInfo(c *client) error {
	b, err := derp.AppendServerInfo(nil, s.private, c.key, derp.ServerInfo{Version: derp.ProtocolVersion})
	if err != nil {
		return err
	}
	return c.write(b)
}

// leave takes out a client whose loops have ended and tells those who have
// heard from it (DERP-69).
func (s *Server) leave(c *client) {
	for _, watcher := range s.registry.remove(c) {
		watcher.queue.pushGone(c.key, derp.GoneDisconnected)
	}
	for peer := range c.heard {
		s.registry.unwatch(peer, c)
	}
	if c.isHome.Load() {
		s.stats.homes.Add(-1)
	}
	c.toldOnce.Do(func() { close(c.told) })
	for _, f := range c.queue.close() {
		s.stats.drop(dropGone, f)
		f.release()
	}
}
