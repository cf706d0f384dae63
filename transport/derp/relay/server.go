// Package relay is the DERP server: it passes packets between clients named by
// their node keys, over connections that someone else has accepted, and through
// other relays of its region.
//
// It owns the registry of clients, their queues and what drops from them. It
// opens no socket: [Server.Handler] takes connections from an http.Server,
// [Server.Accept] from anything else. Who may connect is said by
// Options.Verify; the links to other relays are made by package mesh, which
// [Server.AddForwarder] takes.
//
// Source: doc/protocol/derp.md sections 6, 8, 9 and 10.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// Defaults and times of a server.
const (
	// DefaultWriteTimeout is how long a client may take to accept one write
	// before it is disconnected (DERP-61).
	DefaultWriteTimeout = 2 * time.Second
	// DefaultQueueDepth is how many packets of each kind wait for one client
	// (DERP-52).
	DefaultQueueDepth = 32
	// DefaultMaxLogins is how many clients may be logging in at once.
	DefaultMaxLogins = 4096

	keepAliveJitter = 5 * time.Second // DERP-58

	maxPing = 1000 // bytes; DERP-08
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

	MaxLogins  int // clients that are logging in; 0 = DefaultMaxLogins
	MeshKey    key.Mesh
	Duplicates DuplicatePolicy

	RateLimit          RateLimit // of each client; zero = none
	AdvertiseRateLimit bool      // clients are told, so that they drop instead of being slowed down (DERP-68)

	// Verify says whether a client may stay; nil admits everyone. It is called
	// concurrently, and not for mesh peers.
	Verify func(ctx context.Context, c Candidate) error

	Debug Debug
}

// Errors of Accept.
var (
	// ErrClosed is what Accept returns on a server that is closed.
	ErrClosed = errors.New("relay: server is closed")

	errEnded  = because(ClosedByServer, ErrClosed)
	errLogins = because(ClosedLoginFlood, errors.New("relay: too many clients are logging in"))
)

// A Server is one relay.
type Server struct {
	config
	registry   registry
	stats      stats
	limit      atomic.Pointer[limitPeriod]
	watchers   atomic.Pointer[[]*client] // replaced under mu
	loginBytes atomic.Int64
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	group      *actor.Group // senders, and clients of Handler

	mu       sync.Mutex
	closed   bool
	logins   int
	conns    map[net.Conn]*client // nil while logging in and leaving
	past     flow                 // of clients that have left
	accepts  sync.WaitGroup
	sampling bool // of round trip times
}

// config is what a server is made with.
type config struct {
	private      key.NodePrivate
	public       key.NodePublic
	metaCert     []byte
	meshKey      key.Mesh
	writeTimeout time.Duration
	queueDepth   int
	maxLogins    int
	duplicates   DuplicatePolicy
	advertise    bool
	verify       func(context.Context, Candidate) error
	log          *slog.Logger
	debug        Debug
	drops        dropLog
	sysAtStart   uint64 // bytes
}

// New returns a server with the given key. It does not listen.
func New(private key.NodePrivate, o Options) *Server {
	s := &Server{config: newConfig(private, o), conns: make(map[net.Conn]*client)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.group = actor.NewGroup(s.ctx)
	s.registry.init()
	s.stats.init()
	s.SetRateLimit(o.RateLimit)
	return s
}

func newConfig(private key.NodePrivate, o Options) config {
	c := config{
		private:      private,
		public:       private.Public(),
		meshKey:      o.MeshKey,
		writeTimeout: o.WriteTimeout,
		queueDepth:   o.QueueDepth,
		maxLogins:    o.MaxLogins,
		duplicates:   o.Duplicates,
		advertise:    o.AdvertiseRateLimit,
		verify:       o.Verify,
		log:          o.Logger,
		debug:        o.Debug,
		drops:        newDropLog(o.Debug.Drops),
		sysAtStart:   memoryFromOS(),
	}
	if c.writeTimeout == 0 {
		c.writeTimeout = DefaultWriteTimeout
	}
	if c.queueDepth <= 0 {
		c.queueDepth = DefaultQueueDepth
	}
	if c.maxLogins <= 0 {
		c.maxLogins = DefaultMaxLogins
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.metaCert = newMetaCert(c.public, time.Now())
	return c
}

// PublicKey returns the server's key.
func (s *Server) PublicKey() key.NodePublic { return s.public }

// PrivateKey returns the server's key, with which it also logs in at other
// relays of its region (DERP-85).
func (s *Server) PrivateKey() key.NodePrivate { return s.private }

// HasMeshKey reports whether the server accepts mesh peers.
func (s *Server) HasMeshKey() bool { return !s.meshKey.IsZero() }

// MeshKey returns the key that mesh peers must show; zero for none.
func (s *Server) MeshKey() key.Mesh { return s.meshKey }

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
	stop := context.AfterFunc(ctx, func() { s.endConn(in.Conn) })
	defer stop()
	c, err := s.admit(in)
	if err != nil {
		return err
	}
	return s.run(c)
}

// admit runs the login. When it fails the connection is closed; a client that
// goes by itself is no error but no client either.
func (s *Server) admit(in Incoming) (c *client, err error) {
	if err := s.begin(in.Conn); err != nil {
		s.stats.closed[closeReason(err)].Add(1)
		hangUp(in.Conn)
		return nil, err
	}
	err = actor.Guard(s.ctx, func(ctx context.Context) error {
		c, err = s.login(ctx, in)
		return err
	})
	s.mu.Lock()
	s.logins--
	s.mu.Unlock()
	if err != nil {
		return nil, s.finish(in.Conn, err)
	}
	return c, nil
}

// run serves a client that admit has returned.
func (s *Server) run(c *client) error {
	err := s.finish(c.conn, actor.Guard(s.ctx, c.serve))
	s.log.Log(s.ctx, s.levelOf(c.prober), "relay client has gone", "key", c.key, "remote", c.remote, "err", err)
	return err
}

// begin notes a connection so that Close ends it.
func (s *Server) begin(c net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errEnded
	case s.logins >= s.maxLogins:
		return errLogins
	}
	s.logins++
	s.conns[c] = nil
	s.accepts.Add(1)
	s.stats.accepts.Add(1)
	return nil
}

// finish forgets a connection and returns what its end is to Accept's caller.
func (s *Server) finish(c net.Conn, err error) error {
	defer s.accepts.Done()
	hangUp(c)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if panicked := new(actor.PanicError); errors.As(err, &panicked) {
		s.log.Error("relay client ended by a panic", "err", err)
		err = because(ClosedPanic, err)
	}
	s.stats.closed[closeReason(err)].Add(1)
	if byItself(err) {
		return nil
	}
	return err
}

// hangUp closes the transport below TLS: a farewell of TLS could block.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}

// endConn ends one connection on behalf of the server's user.
func (s *Server) endConn(conn net.Conn) {
	s.mu.Lock()
	c := s.conns[conn]
	s.mu.Unlock()
	if c != nil {
		c.end(errEnded)
		return
	}
	hangUp(conn)
}

// Close ends all connections and waits until every Accept has returned. It may
// be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for conn, c := range s.conns {
		if c != nil {
			c.endSoon(errEnded)
		} else {
			hangUp(conn)
		}
	}
	s.mu.Unlock()
	s.cancel()
	s.accepts.Wait()
	s.group.Wait()
	return nil
}

// Shutdown tells all clients that the server restarts, and closes it when they
// have been told or ctx ends. Each is asked to wait for a random part of spread
// before it reconnects, and to try for tryFor (DERP-17).
func (s *Server) Shutdown(ctx context.Context, spread, tryFor time.Duration) error {
	var told []<-chan struct{}
	for _, c := range s.clients() {
		told = append(told, c.restarting(spread, tryFor))
	}
	for _, ch := range told {
		select {
		case <-ch:
		case <-ctx.Done():
		}
	}
	return s.Close()
}

// clients returns all clients that are logged in.
func (s *Server) clients() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*client, 0, len(s.conns))
	for _, c := range s.conns {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

func (s *Server) newClient(in Incoming) *client {
	c := &client{
		server:    s,
		conn:      in.Conn,
		remote:    in.Remote,
		notIdeal:  in.IdealNode != "",
		connected: time.Now(),
	}
	c.read.in = reader{src: readAhead(in.Conn), pending: in.Pending}
	c.queue.start, c.queue.depth = c.startSender, s.queueDepth
	return c
}

// join makes the client known.
func (s *Server) join(c *client) {
	s.log.Log(s.ctx, s.levelOf(c.prober), "relay client has come", "key", c.key, "remote", c.remote, "mesh", c.mesh, "prober", c.prober)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.conn] = c
	s.registry.add(c)
	if c.notIdeal {
		s.stats.notIdeal.Add(1)
	}
	s.startSampler()
}

// leave takes out a client whose reader has ended.
func (s *Server) leave(c *client) {
	hangUp(c.conn) // frees a sender that is writing
	for _, f := range c.queue.close() {
		s.drop(DropGone, c.key, f)
	}
	s.forget(c)
	for peer := range c.heardOf.sources {
		s.registry.unsubscribe(peer, c)
	}
}

// forget takes the client out of what others see, and keeps its counters.
func (s *Server) forget(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.conn] = nil
	s.registry.remove(c)
	s.removeWatcher(c)
	s.past.add(c.counters.load())
	if c.notIdeal {
		s.stats.notIdeal.Add(-1)
	}
	if c.read.isHome {
		s.stats.homes.Add(-1)
	}
}
