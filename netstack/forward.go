package netstack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// A ForwardConfig says what becomes of flows to hosts behind this node. Its
// functions run on goroutines of their own until they return or their ctx ends.
type ForwardConfig struct {
	// Routes are the networks behind the node; none: nothing is forwarded.
	Routes *actor.Cell[[]netip.Prefix]

	// TCP serves a connection that a peer wants. One that it has not accepted when
	// it returns is refused (SVC-53).
	TCP func(ctx context.Context, r *Request)

	// UDP serves the datagrams between a peer and a host, and closes c.
	UDP func(ctx context.Context, c *UDPConn)

	// Echo asks a host for an echo of payload; without an error the peer gets it
	// (SVC-62).
	Echo func(ctx context.Context, from, to netip.Addr, payload []byte) error
}

// A Forwarder is an actor that takes what is for hosts behind the node: TCP, UDP
// and ICMP echo requests to addresses of its routes that are not the stack's own.
// Whether a peer may send there was decided before, by the packet filter.
type Forwarder struct {
	config ForwardConfig
	limits [forwardKinds]int // forwardLimits but in tests
	stack  *Stack
	now    atomic.Pointer[forwarding] // nil while Serve does not run
	count  forwardCounters
}

// forwardCounters are those of ForwardStats.
type forwardCounters struct{ tcp, udp, echo, busy, failed atomic.Uint64 }

// ForwardStats are counters since the Forwarder was made.
type ForwardStats struct {
	TCP    uint64 // connections accepted
	UDP    uint64 // flows begun
	Echo   uint64 // echo requests answered
	Busy   uint64 // of all, refused because too many were under way
	Failed uint64 // connections refused, and echo requests dropped, because the host behind did not answer
	Open   int    // connections, flows and echo requests under way
}

// NewForwarder returns a forwarder of the stack. A stack has one that serves.
func (s *Stack) NewForwarder(c ForwardConfig) *Forwarder {
	return &Forwarder{config: c, limits: s.forwardLimits(), stack: s}
}

// String names the actor.
func (*Forwarder) String() string { return "netstack.Forwarder" }

// Stats returns the counters.
func (f *Forwarder) Stats() ForwardStats {
	c := &f.count
	s := ForwardStats{TCP: c.tcp.Load(), UDP: c.udp.Load(), Echo: c.echo.Load(), Busy: c.busy.Load(), Failed: c.failed.Load()}
	if w := f.now.Load(); w != nil {
		s.Open = w.opened()
	}
	return s
}

// Serve forwards until ctx ends; then everything under way ends. What a route
// that goes has carried ends with it.
func (f *Forwarder) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		w := newForwarding(f, g)
		f.now.Store(w)
		defer w.end()
		for {
			routes, changed := f.config.Routes.Load()
			if err := w.follow(routes); err != nil {
				return err
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// End ends the flows, being opened or open, that ended chooses. Their peers see a
// reset, which nobody takes for the end of what the host sent.
func (f *Forwarder) End(ended func(proto packet.Proto, from, to netip.AddrPort) bool) {
	if w := f.now.Load(); w != nil {
		w.close(ended)
	}
}

// A forwarding is what a Forwarder has under way during one Serve.
type forwarding struct {
	forwarder *Forwarder
	stack     *Stack
	group     *actor.Group
	syns      *tcp.Forwarder
	routes    atomic.Pointer[[]netip.Prefix]
	flows     sync.Map // of datagrams, by datagramFlow

	mu    sync.Mutex
	ended bool
	open  map[*forwarded]struct{}
	uses  [forwardKinds]tally
}

// A forwarded is one flow under way.
type forwarded struct {
	kind     forwardKind
	proto    packet.Proto
	from, to netip.AddrPort
	cancel   context.CancelFunc
}

func newForwarding(f *Forwarder, g *actor.Group) *forwarding {
	w := &forwarding{forwarder: f, stack: f.stack, group: g, open: make(map[*forwarded]struct{})}
	for kind := range w.uses {
		w.uses[kind] = newTally(f.limits[kind])
	}
	w.syns = tcp.NewForwarder(f.stack.gv, 0, 2*f.limits[forwardTCP], w.request)
	w.routes.Store(new([]netip.Prefix))
	return w
}

// follow makes routes those that are forwarded to. Only while there are any has
// gVisor sockets that send in the name of others.
func (w *forwarding) follow(routes []netip.Prefix) error {
	nic, on := w.stack.links[0].nic, len(routes) > 0
	w.routes.Store(&routes)
	if !on {
		nic.forward.Store(nil)
	}
	if err := w.stack.gv.SetSpoofing(nicID, on); err != nil {
		return w.stack.unlessClosed(fmt.Errorf("netstack: forward: %v", err))
	}
	if on {
		nic.forward.Store(w)
	}
	w.close(func(_ packet.Proto, _, to netip.AddrPort) bool { return !w.routed(to.Addr()) })
	return nil // begin looks at the routes once more
}

// routed reports whether a is behind this node.
func (w *forwarding) routed(a netip.Addr) bool {
	return slices.ContainsFunc(*w.routes.Load(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// Errors of begin.
var (
	errBusy    = errors.New("netstack: too many flows are forwarded")
	errNoRoute = errors.New("netstack: the route has gone")
)

// begin runs serve for a flow on a goroutine of its own. The error is errBusy,
// which counts, errNoRoute, or net.ErrClosed after end.
func (w *forwarding) begin(fl *forwarded, serve func(context.Context)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
		return net.ErrClosed
	case !w.routed(fl.to.Addr()):
		return errNoRoute
	case !w.uses[fl.kind].take(fl.from.Addr()):
		w.forwarder.count.busy.Add(1)
		return errBusy
	}
	ctx, cancel := context.WithCancel(w.group.Context())
	fl.cancel = cancel
	w.open[fl] = struct{}{}
	w.group.Go(func(context.Context) error {
		defer w.done(fl)
		serve(ctx)
		return nil
	})
	return nil
}

// full reports whether too many flows of a kind are under way for one more of a
// source, and counts that: before anything is spent on what begin would refuse.
func (w *forwarding) full(kind forwardKind, from netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.uses[kind].room(from) {
		return false
	}
	w.forwarder.count.busy.Add(1)
	return true
}

func (w *forwarding) done(fl *forwarded) {
	fl.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, fl)
	w.uses[fl.kind].give(fl.from.Addr())
}

// close ends the flows that ended chooses, which may take its time: what begins
// meanwhile does not wait.
func (w *forwarding) close(ended func(proto packet.Proto, from, to netip.AddrPort) bool) {
	w.mu.Lock()
	open := slices.Collect(maps.Keys(w.open))
	w.mu.Unlock()
	for _, fl := range open {
		if ended(fl.proto, fl.from, fl.to) {
			if fl.kind == forwardTCP {
				w.stack.abort(fl.from, fl.to)
			}
			fl.cancel()
		}
	}
}

func (w *forwarding) opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.open)
}

// end takes nothing any more; what is under way ends with the group.
func (w *forwarding) end() {
	w.follow(nil) // a stack that is closed refuses, and needs no more
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}
