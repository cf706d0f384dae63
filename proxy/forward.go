// Package proxy carries connections between the host and the tailnet: port
// forwards in both directions.
//
// It owns the forwards' listeners and connections, and takes a node as nothing
// but a function that dials. Source: doc/protocol/node-services.md sections 6.2
// and 19.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

const (
	// maxConns bounds the connections of one forward; more wait in the
	// listener's backlog.
	maxConns = 4096

	// dialTimeout bounds one dial of a target (SVC-80).
	dialTimeout = 30 * time.Second
)

// A Dial connects to a forward's target.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// A Forward accepts connections and pipes each to its target.
type Forward struct {
	listener net.Listener
	dial     Dial
	target   string
	log      *slog.Logger

	slots    chan struct{}
	accepted atomic.Uint64
	failed   atomic.Uint64
}

// NewForward returns a forward from a listener, which it takes over, to target.
func NewForward(ln net.Listener, dial Dial, target string, log *slog.Logger) *Forward {
	return &Forward{listener: ln, dial: dial, target: target, log: log, slots: make(chan struct{}, maxConns)}
}

// String names the actor.
func (*Forward) String() string { return "proxy.Forward" }

// Addr is where the forward listens.
func (f *Forward) Addr() net.Addr { return f.listener.Addr() }

// Target is where connections are forwarded to.
func (f *Forward) Target() string { return f.target }

// Counts returns how many connections were accepted, and how many of them could
// not be forwarded.
func (f *Forward) Counts() (accepted, failed uint64) { return f.accepted.Load(), f.failed.Load() }

// Serve accepts until ctx ends, then closes the listener and every connection
// and waits for them.
func (f *Forward) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		stop := context.AfterFunc(ctx, func() { f.listener.Close() })
		defer stop()
		for {
			select {
			case f.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			c, err := f.listener.Accept()
			if err != nil {
				<-f.slots
				if err := f.acceptFailed(ctx, err); err != nil {
					return err
				}
				continue
			}
			f.accepted.Add(1)
			g.Go(func(ctx context.Context) error {
				defer func() { <-f.slots }()
				f.forward(ctx, c)
				return nil
			})
		}
	})
}

// acceptFailed waits out a shortage of file descriptors; a closed listener ends
// the forward.
func (f *Forward) acceptFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	f.log.Warn("forward cannot accept", "listen", f.Addr(), "err", err)
	return actor.Sleep(ctx, 100*time.Millisecond)
}

// forward connects one accepted connection to the target.
func (f *Forward) forward(ctx context.Context, c net.Conn) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	t, err := f.dial(dctx, "tcp", f.target)
	if err != nil {
		f.failed.Add(1)
		f.log.Warn("forward cannot reach its target", "listen", f.Addr(), "target", f.target, "client", c.RemoteAddr(), "err", err)
		reset(c)
		return
	}
	_, _, err = Pipe(ctx, c, t)
	if err != nil && ctx.Err() == nil {
		f.log.Debug("forwarded connection ended", "listen", f.Addr(), "target", f.target, "err", err)
	}
}

// reset closes a connection such that its client sees a failure instead of an
// empty reply, where the connection can do so.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}
