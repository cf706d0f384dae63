package node

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netstack"
)

// A FallbackTCPHandler decides about a connection that a peer wants and nobody
// listens for: from src to dst, which is an address of this node, or of a network
// that it routes to. With intercept it is handler's, which closes it, or refused if
// handler is nil; else others decide, and at last it is what it would be without
// them. The decision must not take long. Close of the node closes the connection, and
// does not wait for handler.
type FallbackTCPHandler func(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool)

// RegisterFallbackTCPHandler has cb decide about connections for which nobody
// listens, until the function returned is called. Several are asked in the order of
// their registration. The node need not have started.
func (n *Node) RegisterFallbackTCPHandler(cb FallbackTCPHandler) func() {
	f := &n.fallbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	entry := &cb
	f.set(append(slices.Clone(f.all()), entry))
	if f.serve == nil {
		f.serve = (*runtime).serveFallbacks
		f.join()
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.set(slices.DeleteFunc(slices.Clone(f.all()), func(e *FallbackTCPHandler) bool { return e == entry }))
	}
}

// fallbacks are the registered handlers. The slice is replaced, never written to.
type fallbacks struct {
	now atomic.Pointer[[]*FallbackTCPHandler]

	mu    sync.Mutex     // held to change what follows, and to replace the slice
	serve func(*runtime) // nil until there was one: a program that has none does not link it
	run   *runtime       // nil until the node has started
}

// started notes the node's runtime, before packets come.
func (f *fallbacks) started(r *runtime) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.run = r
	f.join()
}

// join has the runtime ask the handlers once there are both. f.mu is held.
func (f *fallbacks) join() {
	if f.serve != nil && f.run != nil {
		f.serve(f.run)
	}
}

func (f *fallbacks) all() []*FallbackTCPHandler {
	if all := f.now.Load(); all != nil {
		return *all
	}
	return nil
}

func (f *fallbacks) set(all []*FallbackTCPHandler) { f.now.Store(&all) }

// decide asks the handlers in turn.
func (f *fallbacks) decide(src, dst netip.AddrPort) (handler func(net.Conn), intercept bool) {
	for _, cb := range f.all() {
		if handler, intercept = (*cb)(src, dst); intercept {
			return handler, true
		}
	}
	return nil, false
}

// any reports whether there are handlers. It is asked for each packet to a port that
// nobody listens to.
func (f *fallbacks) any() bool { return len(f.all()) > 0 }

// serveFallbacks has the handlers asked from now on.
func (r *runtime) serveFallbacks() {
	ask := interceptor(r.fallback)
	r.intercept.Store(&ask)
	if r.stack != nil {
		r.stack.Unheard(r.fallbacks.any, r.unheard)
	}
}

// An interceptor may serve a request, and reports whether it has decided about it.
type interceptor func(context.Context, *netstack.Request) (decided bool)

// unheard serves a connection to an address of the node that nobody listens for. It
// is refused unless a handler takes it.
func (r *runtime) unheard(q *netstack.Request) {
	r.aside(func(ctx context.Context) {
		defer q.Refuse()
		r.fallback(ctx, q)
	})
}

// fallback has a handler serve a request, and reports whether one has decided
// about it.
func (r *runtime) fallback(ctx context.Context, q *netstack.Request) (decided bool) {
	handler, intercept := r.fallbacks.decide(q.From, q.To)
	if handler == nil {
		return intercept
	}
	c, err := q.Accept(ctx)
	if err != nil {
		r.log.Debug("connection not accepted", "from", q.From, "to", q.To, "err", err)
		return true
	}
	if !r.admit(c.(*netstack.Conn)) {
		c.Close()
		return true
	}
	r.hand(handler, c)
	return true
}

// hand has a handler of the program serve a connection.
func (r *runtime) hand(handler func(net.Conn), c net.Conn) {
	r.asides.foreign.Go(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { c.Close() })()
		if err := actor.Guard(ctx, func(context.Context) error { handler(c); return nil }); err != nil {
			c.Close()
			r.log.Error("a handler of connections that nobody listens for has failed", "err", err)
		}
		return nil
	})
}
