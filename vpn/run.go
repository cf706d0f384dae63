package vpn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// A run is a node from Start to Stop.
type run struct {
	session *session
	id      uint64 // of the Start request
	options StartOptions
	pings   *actor.Cell[map[netmap.StableID]Ping]
	cancel  context.CancelFunc
	ctx     context.Context

	node  Node          // set before made is closed
	made  chan struct{} // closed when there is a node
	up    chan struct{} // closed when the tunnel runs
	ended chan error    // gets one value when all is closed: why, nil if it was cancelled

	answered bool // the Start request; of the session
}

// newRun returns a run that has not begun.
func newRun(ctx context.Context, s *session, id uint64, m *wire.StartRequest) *run {
	r := &run{
		session: s, id: id, options: s.optionsOf(m), pings: actor.NewCell(map[netmap.StableID]Ping{}),
		made: make(chan struct{}), up: make(chan struct{}), ended: make(chan error, 1),
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// signals are what the session waits for in a state; a run that is not there has
// none.
func (r *run) signals(st state) (up <-chan struct{}, ended <-chan error) {
	switch {
	case r == nil:
		return nil, nil
	case st == stateStarting:
		return r.up, r.ended
	}
	return nil, r.ended
}

// netmap is that of the node; nil until there is one.
func (r *run) netmap() (nm *netmap.Netmap, changed <-chan struct{}) {
	select {
	case <-r.made:
		return r.node.Netmap()
	default:
		return nil, r.made
	}
}

// serve runs the node until it is cancelled or the node ends. The node is closed
// when ended tells.
func (r *run) serve(context.Context) error {
	defer r.cancel()
	r.ended <- r.work()
	return nil
}

// work makes the node, brings it up, and has the manager kept up to date.
func (r *run) work() error {
	n, err := r.session.NewNode(r.options)
	if err != nil {
		return err
	}
	r.node = n
	close(r.made)
	err = actor.Run(r.ctx, func(ctx context.Context, g *actor.Group) error {
		settler := &settler{link: r.session.link, node: n, mtu: r.session.MTU, log: r.options.Logger}
		if err := r.bring(ctx, settler); err != nil {
			return err
		}
		if r.settles() {
			g.Go(settler.serve)
		}
		g.Go((&prober{node: n, log: slog.New(slog.DiscardHandler), pings: r.pings}).serve)
		close(r.up)
		return n.Wait(ctx)
	})
	if r.ctx.Err() != nil {
		err = nil // asked to stop
	}
	return errors.Join(err, n.Close())
}

// settles reports whether the manager sets up an interface.
func (r *run) settles() bool { return r.options.Descriptor > 0 || r.session.AlwaysSettings }

// bring joins the tailnet, and has the manager set up the interface (VPN-24).
func (r *run) bring(ctx context.Context, s *settler) error {
	timeout := r.session.StartTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the tunnel is not up after %v", timeout))
	defer cancel()
	if err := r.node.Up(ctx); err != nil {
		return err
	}
	if !r.settles() {
		return nil
	}
	nm, _ := r.node.Netmap()
	return s.settle(ctx, nm)
}
