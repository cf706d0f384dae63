package localapi

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Bounds of what clients may make the server do.
const (
	maxConns       = 256              // at a time; more wait in the listener's backlog
	maxHeaderBytes = 16 << 10         // of a request
	maxBody        = 1 << 20          // bytes of a request that is read
	headerTimeout  = 10 * time.Second // until a request's header has come
	bodyTimeout    = 30 * time.Second // until all of a request has come
	idleTimeout    = 60 * time.Second // until the next request
	finishTimeout  = time.Second      // for answers under way, once Serve is to end
	writeTimeout   = 10 * time.Second // of each piece of an answer; a client that stops reading is disconnected (SVC-134)
)

// A Config is what a Server needs of its surroundings.
type Config struct {
	Node   Node
	Logger *slog.Logger // nil discards

	// Version is that of the program, and Capability the protocol version that the
	// node speaks with the control server (SVC-123).
	Version    string
	Capability int

	// Operator is the user, besides root and the one who runs the process, who may
	// change the node; negative for none.
	Operator int

	// Password, if not empty, is asked of every request, and gives all rights. It is
	// for sockets without peer credentials: then loopback host names are accepted,
	// too (SVC-122).
	Password string

	// AskHeader asks for the header "Sec-Tailscale: localapi", too, which no web page
	// can send (SVC-169).
	AskHeader bool

	// Metrics writes the node's counters as Prometheus text; nil: there are none.
	Metrics func(io.Writer) error

	// Shutdown has the program end in an orderly way; nil: it does not.
	Shutdown func()

	writeTimeout time.Duration               // in place of the constant, in tests
	peerUID      func(net.Conn) (int, error) // in place of the system, in tests
}

// A Server answers requests about a node.
type Server struct {
	config Config
	routes map[string]map[string]route // by path behind prefix, then by method
	pokes  *actor.Cell[int]            // changes when a client has asked for a state that may be so already
	offer  atomic.Pointer[offer]       // of the last start
	count  counters
}

type counters struct{ connections, crowded, requests, denied, slow atomic.Uint64 }

// Stats are counters since the server was made.
type Stats struct {
	Connections uint64 // accepted
	Crowded     uint64 // of those, closed at once, as their user has enough
	Requests    uint64
	Denied      uint64 // of those, refused: not permitted, or not from a program that may ask
	Slow        uint64 // clients disconnected because they did not read
}

// New returns a server. It starts nothing.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.writeTimeout = cmp.Or(c.writeTimeout, writeTimeout)
	if c.peerUID == nil {
		c.peerUID = peerUID
	}
	s := &Server{config: c, routes: make(map[string]map[string]route), pokes: actor.NewCell(0)}
	for _, r := range endpoints() {
		s.add(r)
	}
	return s
}

// String names the actor.
func (*Server) String() string { return "localapi.Server" }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.count
	return Stats{Connections: c.connections.Load(), Crowded: c.crowded.Load(), Requests: c.requests.Load(), Denied: c.denied.Load(), Slow: c.slow.Load()}
}

// Handle adds an endpoint of the program's own, at tsnode/ and name, for clients of
// that access: MayWrite for what changes something, and for what not every user of
// the machine should see. It is not called once Serve has been.
func (s *Server) Handle(method, name string, a Access, h http.HandlerFunc) {
	s.add(route{method, "tsnode/" + name, a, func(_ *Server, w http.ResponseWriter, r *http.Request) { h(w, r) }})
}

func (s *Server) add(r route) {
	if s.routes[r.path] == nil {
		s.routes[r.path] = make(map[string]route)
	}
	s.routes[r.path][r.method] = r
}

// Serve answers on ln, which it closes, until ctx ends; then requests under way, whose
// contexts have ended, may still be answered, and it ends all connections and waits
// for them. It may be called for several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	v := &serving{
		Listener: ln, server: s, ctx: ctx, others: newCrowd(), closed: make(chan struct{}),
		slots: make(chan struct{}, maxConns), requests: make(chan struct{}, maxConns),
	}
	h := v.httpServer()
	stop := context.AfterFunc(ctx, func() { v.Close() })
	defer v.await()
	defer h.Close()
	defer stop()
	err := h.Serve(v)
	if ctx.Err() != nil {
		finish(h)
		return ctx.Err()
	}
	return fmt.Errorf("localapi: %w", err)
}

// finish lets requests under way be answered: what one of them has done may be why
// all ends, and who asked for it is to hear of it.
func finish(h *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	h.Shutdown(ctx) // what it leaves open is closed
}
