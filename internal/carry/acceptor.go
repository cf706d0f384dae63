package carry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// acceptPause is how long an acceptor waits when the system has no file
// descriptor for another connection.
const acceptPause = 100 * time.Millisecond

// An Acceptor takes the connections of a listener, as many as its limit lets in,
// and has each served on a goroutine of its own. Others are reset.
type Acceptor struct {
	Listener net.Listener
	Limit    *Limit
	Log      *slog.Logger

	// Handle serves a connection, and closes it. It returns soon after its ctx
	// ends.
	Handle func(ctx context.Context, c net.Conn)

	draining atomic.Bool
	mute     Mute
}

// String names the actor.
func (*Acceptor) String() string { return "carry.Acceptor" }

// Serve accepts until ctx ends or the listener fails; then it closes the listener,
// and ends and awaits all that Handle serves. After Drain it only awaits them, and
// returns nil.
func (a *Acceptor) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := actor.NewGroup(ctx)
	err := actor.Guard(ctx, func(ctx context.Context) error { return a.accept(ctx, g) })
	if err != nil {
		cancel()
	}
	if failed := g.Wait(); err == nil {
		return failed
	}
	return err
}

// Drain ends accepting and lets the connections go on. It may be called more than
// once.
func (a *Acceptor) Drain() {
	a.draining.Store(true)
	a.Listener.Close()
}

// accept returns nil when the acceptor drains.
func (a *Acceptor) accept(ctx context.Context, g *actor.Group) error {
	defer a.Listener.Close()
	stop := context.AfterFunc(ctx, func() { a.Listener.Close() })
	defer stop()
	for {
		c, err := a.Listener.Accept()
		if err == nil {
			a.letIn(g, c)
			continue
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case a.draining.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		}
		if a.mute.Pass(time.Now()) {
			a.Log.Warn("cannot accept", "listen", a.Listener.Addr(), "err", err)
		}
		if err := actor.Sleep(ctx, acceptPause); err != nil {
			return err
		}
	}
}

// letIn has a connection served, if there is room.
func (a *Acceptor) letIn(g *actor.Group, c net.Conn) {
	source := SourceOf(c)
	if !a.Limit.Take(source) {
		Reset(c)
		return
	}
	g.Go(func(ctx context.Context) error {
		defer a.Limit.Give(source)
		a.Handle(ctx, c)
		return nil
	})
}

// SourceOf returns the address that a connection comes from, for a Limit; zero if
// it has none.
func SourceOf(c net.Conn) netip.Addr { return AddrPortOf(c.RemoteAddr()).Addr() }

// AddrPortOf returns the address of a TCP or UDP socket; zero for others.
func AddrPortOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// Reset closes a connection such that its peer sees a failure instead of an empty
// reply, where the connection can do so.
func Reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}
