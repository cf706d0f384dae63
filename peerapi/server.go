package peerapi

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Bounds of what peers may make the service do.
const (
	maxConns        = 64 // connections at a time
	maxConnsOfPeer  = 16 // of one node
	maxRequests     = 64 // under way; more are answered with status 503
	maxRequestsOf   = 32 // of those, from one node
	maxStreams      = 32 // of one HTTP/2 connection at a time
	maxHeaderBytes  = 16 << 10
	maxHeaderWait   = 10 * time.Second // until a request's header has come
	maxTransferWait = 15 * time.Second // until all of it has come, and its answer has gone
	maxIdleWait     = 30 * time.Second // until the next request
)

// A Caller is who has opened a connection, at that time.
type Caller struct {
	Node *netmap.Peer
	User netmap.UserProfile // that owns it
}

// A Config is what a Server needs of its surroundings.
type Config struct {
	// Self returns this node; nil when it is not known.
	Self func() *netmap.Peer

	// Listen opens a port of the stack on all own addresses; 0 is any port.
	Listen func(port uint16) (Listener, error)

	// Start has Serve run, when the first connection comes. It does not wait.
	Start func()

	// WhoIs tells who has opened a connection that Listen's listener has accepted;
	// false for nobody of the tailnet.
	WhoIs func(net.Conn) (Caller, bool)

	// QueryDNS answers a DNS message of a peer, and MayQueryDNS says whether nodes
	// of other users may ask from an address (SVC-88).
	QueryDNS    func(ctx context.Context, message []byte) ([]byte, error)
	MayQueryDNS func(from netip.Addr) bool

	Logger *slog.Logger
}

// A Listener is an open port of the stack. Notify has f called when a connection
// waits to be accepted, so that a service that nobody asks costs no goroutine; f
// does not block.
type Listener interface {
	net.Listener
	Notify(f func())
}

// A Server serves peers. It may be used from any goroutine.
type Server struct {
	config   Config
	requests chan struct{} // one for each request under way; bounded by maxRequests
	wanted   sync.Once     // calls Start
	count    counters

	mu     sync.Mutex
	port   uint16       // 0 before Open
	ln     net.Listener // nil when it is not open
	closed bool
}

// counters are those of Stats.
type counters struct {
	connections, strangers, crowded, requests, forbidden, busy, questions atomic.Uint64
}

// Stats are counters since the server was made.
type Stats struct {
	Connections uint64 // accepted
	Strangers   uint64 // of those, closed without an answer: nobody of the tailnet (SVC-86)
	Crowded     uint64 // of those, closed without an answer: too many at a time
	Requests    uint64 // of peers
	Forbidden   uint64 // of those, refused with status 403
	Busy        uint64 // of those, refused with status 503
	Questions   uint64 // DNS messages that were to be answered
}

// New returns a server. It starts nothing.
func New(c Config) *Server {
	return &Server{config: c, requests: make(chan struct{}, maxRequests)}
}

// String names the actor.
func (*Server) String() string { return "peerapi.Server" }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.count
	return Stats{
		Connections: c.connections.Load(), Strangers: c.strangers.Load(), Crowded: c.crowded.Load(),
		Requests: c.requests.Load(), Forbidden: c.forbidden.Load(), Busy: c.busy.Load(), Questions: c.questions.Load(),
	}
}

// Open opens the port, once, and returns it: it stays the same for as long as the
// process lives (SVC-83). own is an address of the node, from which the port
// follows if nobody else has it.
func (s *Server) Open(own netip.Addr) (port uint16, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	if s.port == 0 {
		err = s.open(candidates(own))
	}
	return s.port, err
}

// open listens on the first of several ports that is free. s.mu is held.
func (s *Server) open(ports []uint16) (err error) {
	for _, port := range ports {
		ln, listenErr := s.config.Listen(port)
		if err = listenErr; err != nil {
			continue
		}
		s.ln, s.port = ln, ln.Addr().(*net.TCPAddr).AddrPort().Port()
		ln.Notify(func() { s.wanted.Do(s.config.Start) })
		return nil
	}
	return fmt.Errorf("peerapi: %w", err)
}

// candidates are the ports to try in turn. Like the reference's they follow from
// the last bytes of the address, which are the same for both families.
func candidates(own netip.Addr) (ports []uint16) {
	const tries, low = 5, 0x8000 // SVC-83
	for try := range byte(tries) {
		b := own.As16()
		last := b[len(b)-3:]
		last[0] += try
		ports = append(ports, low|uint16(crc32.ChecksumIEEE(last)))
	}
	return append(ports, 0)
}

// listener returns the open port for Serve, opened again after a failure.
func (s *Server) listener() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.ln == nil {
		if err := s.open([]uint16{s.port}); err != nil {
			return nil, err
		}
	}
	return s.ln, nil
}

// shut closes the port until listener.
func (s *Server) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		s.ln.Close()
		s.ln = nil
	}
}

// Close closes the port for good.
func (s *Server) Close() {
	s.shut()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// Serve answers peers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	ln, err := s.listener()
	if err != nil {
		return err
	}
	peers := newCallers(ctx, s, ln)
	h := s.httpServer(peers)
	defer s.await(peers)
	defer h.Close()
	defer s.shut()
	defer context.AfterFunc(ctx, s.shut)()
	err = h.Serve(peers)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("peerapi: %w", err)
}

// httpServer returns the server for peers.
func (s *Server) httpServer(peers *callers) *http.Server {
	h := &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		BaseContext:       func(net.Listener) context.Context { return peers.ctx },
		ConnContext:       connContext,
		ConnState:         peers.connState,
		ReadHeaderTimeout: maxHeaderWait, ReadTimeout: maxTransferWait, WriteTimeout: maxTransferWait, IdleTimeout: maxIdleWait,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // it would answer before we look who asks what
		ErrorLog:                     slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug),
	}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	return h
}

// await waits for connections and requests, whose contexts have ended. Those of
// HTTP/2 have goroutines of their own.
func (s *Server) await(peers *callers) {
	peers.alive.Wait()
	for range cap(s.requests) {
		s.requests <- struct{}{}
	}
	for range cap(s.requests) {
		<-s.requests
	}
}
