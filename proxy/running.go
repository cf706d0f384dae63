package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// A service is what listens for a forward.
type service interface {
	Serve(ctx context.Context) error
	Addr() net.Addr
	drain() // listen no more, and return from Serve once all has ended
}

// A running is a forward of a Set: it listens, again and again if need be.
type running struct {
	set    *Set
	spec   Spec
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}
	opened chan error // how listening went first; nil also if it has to wait for the node
	before []*running // forwards that end, and may still have the port
	tally

	draining atomic.Bool
	service  atomic.Pointer[service] // nil while it does not listen
}

func newRunning(ctx context.Context, s *Set, spec Spec) *running {
	r := &running{set: s, spec: spec, ended: make(chan struct{}), opened: make(chan error, 1)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.limit = carry.NewLimit(cmp.Or(spec.Options.MaxConns, DefaultMaxConns), spec.Options.MaxPerSource, s.limit)
	return r
}

// awaitListening waits until the forward listens or has failed to.
func (r *running) awaitListening(ctx context.Context) error {
	select {
	case err := <-r.opened:
		if err != nil {
			return &ListenError{r.spec, err}
		}
		return nil
	case <-r.ended:
		return &ListenError{r.spec, net.ErrClosed}
	case <-ctx.Done():
		return &ListenError{r.spec, ctx.Err()}
	}
}

// serve listens and forwards until it is told to end. A failure is tried again.
func (r *running) serve(context.Context) error {
	defer close(r.ended)
	defer r.cancel()
	for _, b := range r.before {
		select {
		case <-b.ended:
		case <-r.ctx.Done():
		}
	}
	r.before = nil
	var backoff actor.Backoff
	for !r.draining.Load() {
		listened, err := r.once(backoff.Failures() == 0)
		if r.ctx.Err() != nil || err == nil {
			return nil
		}
		r.note(err)
		if listened {
			backoff.Reset()
		}
		if backoff.Wait(r.ctx) != nil {
			return nil
		}
	}
	return nil
}

// once listens and forwards; the error is nil when the forward has been drained. Of
// failures to listen in a row it logs the first, before who waits hears of it.
func (r *running) once(first bool) (listened bool, err error) {
	s, err := r.openOnceReady()
	if err == nil {
		r.service.Store(&s)
		defer r.service.Store(nil)
	}
	if err != nil && first && r.ctx.Err() == nil {
		r.set.config.Logger.Warn("cannot listen", "forward", r.spec, "err", err)
	}
	r.tellOpened(err)
	if err != nil {
		return false, err
	}
	if r.draining.Load() {
		s.drain()
	}
	return true, actor.Guard(r.ctx, s.Serve)
}

// tellOpened tells who waits how listening went.
func (r *running) tellOpened(err error) {
	select {
	case r.opened <- err:
	default: // not the first time
	}
}

// openOnceReady is open, when the node knows its addresses.
func (r *running) openOnceReady() (service, error) {
	s, err := r.open()
	ready := r.set.config.Ready
	if !errors.Is(err, ErrNotYet) || ready == nil {
		return s, err
	}
	r.tellOpened(nil)
	r.set.config.Logger.Debug("forward waits for the node's addresses", "forward", r.spec)
	if err := ready(r.ctx); err != nil {
		return nil, err
	}
	return r.open()
}

// drain ends listening; serve returns when the last connection has ended.
func (r *running) drain() {
	r.draining.Store(true)
	if s := r.service.Load(); s != nil {
		(*s).drain()
		return
	}
	r.cancel() // it does not listen yet, or waits to try again
}

// open listens.
func (r *running) open() (service, error) {
	c := &r.set.config
	if r.spec.Network == "udp" {
		return r.openDatagrams(c)
	}
	network, address := split("tcp", r.spec.Listen)
	if r.spec.Kind == Remote {
		ln, err := c.Tailnet.ListenPending(network, address)
		if err != nil {
			return nil, r.set.explain(r.spec, err)
		}
		return r.remote(c, ln), nil
	}
	ln, err := c.listen(r.ctx, network, address, r.spec.Options.Mode)
	if err != nil {
		return nil, r.set.explain(r.spec, err)
	}
	if r.spec.Kind == Local {
		return newForward(ln, c.Tailnet.Dial, r.spec, &r.tally, c.Logger), nil
	}
	if err := c.Proxies.checkListen(ln.Addr()); err != nil {
		ln.Close()
		return nil, err
	}
	return newProxy(ln, r.spec, c, &r.tally), nil
}

func (r *running) remote(c *Config, ln net.Listener) service {
	if r.spec.Options.Identity {
		return newWebForward(ln, c, r.spec, &r.tally)
	}
	f := newForward(ln, c.dialHost, r.spec, &r.tally, c.Logger)
	f.onBehalf = c.Tailnet.OnBehalf
	return f
}

func (r *running) openDatagrams(c *Config) (service, error) {
	var pc net.PacketConn
	var err error
	if r.spec.Kind == Remote {
		pc, err = c.Tailnet.ListenPacket("udp", r.spec.Listen)
	} else {
		pc, err = c.Host.ListenPacket(r.ctx, "udp", r.spec.Listen)
	}
	if err != nil {
		return nil, r.set.explain(r.spec, err)
	}
	f, err := newDatagramForward(pc, r.spec, &r.tally, c.Logger)
	if err != nil {
		pc.Close()
		return nil, err
	}
	f.dial = func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		return c.Tailnet.Dial(ctx, "udp", r.spec.Target)
	}
	if r.spec.Kind == Remote {
		f.dial = r.dialBehalf
	}
	return f, nil
}

// dialBehalf connects datagrams of a client of the tailnet to the target.
func (r *running) dialBehalf(ctx context.Context, client netip.AddrPort) (net.Conn, error) {
	c := &r.set.config
	conn, err := c.dialNear(ctx, r.spec.Target, client)
	if err != nil {
		return nil, err
	}
	forget := c.Tailnet.OnBehalf("udp", conn.LocalAddr(), client)
	return &behalfConn{Conn: conn, forget: sync.OnceFunc(forget)}, nil
}

// A behalfConn is a socket that acts for a peer until it is closed.
type behalfConn struct {
	net.Conn
	forget func()
}

// NetConn returns the socket.
func (b *behalfConn) NetConn() net.Conn { return b.Conn }

func (b *behalfConn) Close() error {
	b.forget()
	return b.Conn.Close()
}

// A Status tells how a forward fares.
type Status struct {
	Forward   string `json:"forward"`          // as it is written: -L …
	Listen    string `json:"listen,omitempty"` // where it listens; empty while it does not
	Target    string `json:"target,omitempty"`
	Open      int    `json:"open"`            // connections and flows of datagrams now
	Total     uint64 `json:"total"`           // since the forward began
	Failed    uint64 `json:"failed"`          // of all, those that could not be forwarded
	Refused   uint64 `json:"refused"`         // beside them, those for which there was no room
	BytesIn   uint64 `json:"bytesIn"`         // from clients
	BytesOut  uint64 `json:"bytesOut"`        // to them
	Dropped   uint64 `json:"dropped"`         // datagrams that could not be sent on
	LastError string `json:"error,omitempty"` // the last one there was
}

func (r *running) status() Status {
	s := Status{
		Forward: r.spec.String(), Target: r.spec.Target,
		Open: r.limit.Open(), Total: r.total.Load() + r.traffic.Flows.Load(), Failed: r.failed.Load(), Refused: r.limit.Refused(),
		BytesIn: r.traffic.In.Load(), BytesOut: r.traffic.Out.Load(), Dropped: r.traffic.Dropped.Load(),
	}
	if service := r.service.Load(); service != nil {
		s.Listen = showAddr((*service).Addr())
	}
	if err := r.last.Load(); err != nil {
		s.LastError = *err
	}
	return s
}

// showAddr returns an address as a spec has it.
func showAddr(a net.Addr) string {
	if a.Network() == "unix" {
		return fmt.Sprintf("%s%v", unixPrefix, a)
	}
	return a.String()
}
