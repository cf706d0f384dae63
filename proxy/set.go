package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// DefaultMaxTotal is how many connections and flows all forwards of a Set have
// together at most, unless its Config says otherwise.
const DefaultMaxTotal = 65536

// A Config is what a Set works with.
type Config struct {
	Tailnet  Tailnet
	Host     Host
	WhoIs    func(c net.Conn) (Identity, error) // who has opened a connection from the tailnet
	Proxies  Proxies                            // what clients of proxies may do
	MaxTotal int                                // connections and flows of all forwards together; 0: DefaultMaxTotal
	Logger   *slog.Logger
}

// A Set is an actor that has forwards run.
type Set struct {
	config Config
	limit  *carry.Limit
	inbox  chan message
	want   *actor.Cell[[]Spec]     // outlives a restart
	now    *actor.Cell[[]*running] // those that run, in the order they were wanted
}

// NewSet returns a set of no forwards.
func NewSet(c Config) *Set {
	return &Set{
		config: c,
		limit:  carry.NewLimit(cmp.Or(c.MaxTotal, DefaultMaxTotal), 0, nil),
		inbox:  make(chan message),
		want:   actor.NewCell[[]Spec](nil),
		now:    actor.NewCell[[]*running](nil),
	}
}

// String names the actor.
func (*Set) String() string { return "proxy.Set" }

// A ListenError says that a forward cannot listen. It tries again until it can, or
// is no longer wanted.
type ListenError struct {
	Spec Spec
	Err  error
}

// Error names the forward.
func (e *ListenError) Error() string { return fmt.Sprintf("%v: %v", e.Spec, e.Err) }

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// Apply makes want the forwards of the set: those that are new are opened, those
// that are gone end with all their connections, the others do not notice. A SOCKS5
// and an HTTP proxy on one address are one (SVC-166). It returns once each new
// forward listens, or has failed to: then the error joins a *ListenError for each.
// Serve must run.
func (s *Set) Apply(ctx context.Context, want []Spec) error {
	started := make(chan []*running, 1)
	if err := s.post(ctx, applyMessage{want: merge(want), started: started}); err != nil {
		return err
	}
	var errs []error
	for _, r := range <-started {
		if err := r.awaitListening(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Drain ends listening, and returns once the last connection has ended by itself,
// or ctx has (SVC-175). What is open then ends with Serve. Flows of datagrams end
// at once.
func (s *Set) Drain(ctx context.Context) error {
	left := make(chan []*running, 1)
	if err := s.post(ctx, drainMessage{left: left}); err != nil {
		return err
	}
	for _, r := range <-left {
		select {
		case <-r.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Status tells how each forward fares, in the order they were wanted.
func (s *Set) Status() (all []Status) {
	for _, r := range s.now.Get() {
		all = append(all, r.status())
	}
	return all
}

// post hands a message to Serve.
func (s *Set) post(ctx context.Context, m message) error {
	select {
	case s.inbox <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A message changes which forwards run. Only Serve applies it.
type message interface{ apply(*state) }

// A state is what Serve knows.
type state struct {
	set   *Set
	group *actor.Group
	runs  map[Spec]*running
}

// Serve runs forwards until ctx ends.
func (s *Set) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		st := &state{set: s, group: g, runs: make(map[Spec]*running)}
		defer s.now.Store(nil)
		st.follow(s.want.Get())
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case m := <-s.inbox:
				m.apply(st)
			}
		}
	})
}

// follow ends what is not wanted, then starts what is new: that may need a port
// which only then is free.
func (st *state) follow(want []Spec) (started []*running) {
	st.set.want.Store(want)
	wanted := make(map[Spec]bool)
	for _, spec := range want {
		wanted[spec] = true
	}
	for spec, r := range st.runs {
		if !wanted[spec] {
			delete(st.runs, spec)
			r.drain() // closes the listener before it returns
			r.cancel()
		}
	}
	var now []*running
	for _, spec := range want {
		r, ok := st.runs[spec]
		if !ok {
			r = st.start(spec)
			started = append(started, r)
		}
		now = append(now, r)
	}
	st.set.now.Store(now)
	return started
}

func (st *state) start(spec Spec) *running {
	r := newRunning(st.group.Context(), st.set, spec)
	st.runs[spec] = r
	st.group.Go(r.serve)
	return r
}

// An applyMessage is Apply.
type applyMessage struct {
	want    []Spec
	started chan<- []*running
}

func (m applyMessage) apply(st *state) { m.started <- st.follow(m.want) }

// A drainMessage is Drain.
type drainMessage struct{ left chan<- []*running }

func (m drainMessage) apply(st *state) {
	st.set.want.Store(nil)
	var left []*running
	for _, r := range st.runs {
		r.drain()
		left = append(left, r)
	}
	m.left <- left
}

// merge returns each forward once, and proxies of both kinds on one address as one.
func merge(want []Spec) (merged []Spec) {
	at := make(map[Spec]int) // where the forward is in merged
	for _, s := range want {
		if _, ok := at[s]; ok {
			continue
		}
		if i, ok := at[s.counterpart()]; ok && s.counterpart() != s {
			merged[i].Kind = Mixed
			at[s] = i
			continue
		}
		at[s] = len(merged)
		merged = append(merged, s)
	}
	return merged
}

// counterpart returns the proxy of the other kind that shares the port of s; what
// has none is its own.
func (s Spec) counterpart() Spec {
	_, port, _ := net.SplitHostPort(s.Listen)
	switch {
	case port == "0": // another port each time
	case s.Kind == SOCKS:
		s.Kind = HTTP
	case s.Kind == HTTP:
		s.Kind = SOCKS
	}
	return s
}

// listen listens on this machine. A unix socket that a process has left behind,
// which is no more, makes room.
func (c *Config) listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := c.Host.Listen(ctx, network, address)
	if network != "unix" || !errors.Is(err, syscall.EADDRINUSE) {
		return ln, err
	}
	if conn, dialErr := c.dialHost(ctx, network, address); dialErr == nil {
		conn.Close()
		return nil, fmt.Errorf("%w by a process that runs", err)
	} else if !errors.Is(dialErr, syscall.ECONNREFUSED) {
		return nil, err
	}
	if err := os.Remove(address); err != nil {
		return nil, err
	}
	return c.Host.Listen(ctx, network, address)
}

// dialHost connects to what this machine reaches.
func (c *Config) dialHost(ctx context.Context, network, address string) (net.Conn, error) {
	return c.Host.DialFrom(ctx, network, "", address)
}

// dialNear is dialHost of datagrams for a client of the tailnet. To this machine
// itself they come from the client's port if it is free, as it may matter to who
// answers (SVC-57).
func (c *Config) dialNear(ctx context.Context, address string, client netip.AddrPort) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		near := netip.AddrPortFrom(a, client.Port())
		if conn, err := c.Host.DialFrom(ctx, "udp", near.String(), address); err == nil {
			return conn, nil
		}
	}
	return c.dialHost(ctx, "udp", address)
}
