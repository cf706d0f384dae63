package devnet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// A Net is a running tailnet. Its methods may be called from any goroutine.
type Net struct {
	cfg     Config
	log     *slog.Logger
	control *controlServer
	regions []*region

	inbox   chan message
	changes actor.Cell[uint64] // the state's version; stored when it has grown
	cancel  context.CancelFunc
	gone    chan struct{} // closed when nobody owns the state any more
	done    chan struct{} // closed when all has ended
	err     error         // why; read after done
}

// A message looks at the state, or changes it. Only the owner runs it.
type message func(*tailnet, time.Time)

// inboxSize is how many messages wait before their senders do.
const inboxSize = 64

// Start starts a tailnet; ctx bounds the starting only.
func Start(ctx context.Context, c Config) (*Net, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	t, err := newTailnet(c, time.Now())
	if err != nil {
		return nil, err
	}
	n := &Net{
		cfg: c, log: c.Logger, inbox: make(chan message, inboxSize), gone: make(chan struct{}), done: make(chan struct{}),
	}
	if err := n.open(ctx, t); err != nil {
		close(n.gone) // nobody will answer the requests that have come already
		n.shut()
		return nil, fmt.Errorf("devnet: %w", err)
	}
	run, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go n.run(run, t)
	return n, nil
}

// run serves until Close.
func (n *Net) run(ctx context.Context, t *tailnet) {
	defer close(n.done)
	n.err = n.serve(ctx, t)
}

// A TB is what New needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Fatalf(format string, args ...any)
}

// New starts a tailnet for a test, which fails if that fails, and closes it when
// the test ends.
func New(t TB, c Config) *Net {
	t.Helper()
	n, err := Start(t.Context(), c)
	if err != nil {
		t.Fatalf("start: %v", err)
		return nil
	}
	t.Cleanup(func() {
		t.Helper()
		if err := n.Close(); err != nil {
			t.Fatalf("devnet: %v", err)
		}
	})
	return n
}

// open opens all sockets; on an error shut closes those that are open.
func (n *Net) open(ctx context.Context, t *tailnet) (err error) {
	if n.control, err = newControlServer(n, t.private); err != nil {
		return err
	}
	if err := n.control.start(ctx); err != nil {
		return err
	}
	for id := 1; id <= n.cfg.Relays; id++ {
		r, err := newRegion(id, n.control.addr.Addr(), n.cfg)
		if err != nil {
			return err
		}
		n.regions = append(n.regions, r)
		if err := r.start(ctx); err != nil {
			return err
		}
	}
	t.regions = n.regions
	return nil
}

// shut closes all servers, for good.
func (n *Net) shut() {
	if n.control != nil {
		n.control.end()
	}
	for _, r := range n.regions {
		r.end()
	}
}

// serve owns the state until ctx ends. The servers end first: they wait for
// answers from here.
func (n *Net) serve(ctx context.Context, t *tailnet) error {
	return actor.Run(context.Background(), func(_ context.Context, g *actor.Group) error {
		down := make(chan struct{})
		g.Go(func(context.Context) error {
			<-ctx.Done()
			n.shut()
			close(down)
			return nil
		})
		defer n.cancel() // a panic ends the servers, too
		defer close(n.gone)
		return n.own(t, down)
	})
}

// own runs messages and timers on the state until down is closed.
func (n *Net) own(t *tailnet, down <-chan struct{}) (err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if t.unsaved {
			if err = t.save(); err != nil {
				n.log.Error("devnet cannot store its state", "err", err)
			}
		}
		if n.changes.Get() != t.version {
			n.changes.Store(t.version)
		}
		timer.Reset(t.wait(time.Now()))
		select {
		case <-down:
			return err
		case m := <-n.inbox:
			m(t, time.Now())
		case <-timer.C:
			t.advance(time.Now())
		}
	}
}

// do has the owner run m and waits for it.
func (n *Net) do(m message) error {
	ran := make(chan struct{})
	select {
	case n.inbox <- func(t *tailnet, now time.Time) { m(t, now); close(ran) }:
	case <-n.gone:
		return ErrClosed
	}
	select {
	case <-ran:
		return nil
	case <-n.gone:
	}
	select {
	case <-ran: // as the last thing before the end
		return nil
	default:
		return ErrClosed
	}
}

// withNode runs f on the member of that name.
func (n *Net) withNode(name string, f func(*tailnet, *member, time.Time) error) (err error) {
	closed := n.do(func(t *tailnet, now time.Time) {
		m := t.byName(name)
		if m == nil {
			err = fmt.Errorf("devnet: %w: %q", ErrNoNode, name)
			return
		}
		err = f(t, m, now)
	})
	return errors.Join(closed, err)
}

// Close ends the tailnet: control server, relays and STUN. Nodes go on by
// themselves, without. It returns an error if the last state could not be
// stored. It may be called more than once.
func (n *Net) Close() error {
	n.cancel()
	<-n.done
	return n.err
}

// URL returns that of the control server.
func (n *Net) URL() string { return n.control.url(n.control.host()) }

// Domain returns the DNS suffix of the tailnet.
func (n *Net) Domain() string { return n.cfg.Domain }

// Roots returns the authority of the control server's certificate, for nodes to
// trust when Config.TLS is set; nil otherwise.
func (n *Net) Roots() *x509.CertPool { return n.control.roots() }
