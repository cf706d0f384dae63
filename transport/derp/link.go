package derp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// Times of a region's connection.
const (
	// retryMax is the longest pause between two connection attempts before the
	// random factor (DERP-145).
	retryMax = 5 * time.Second
	// steady is how long a connection must have lived for the next attempt to
	// follow without a growing pause.
	steady = 10 * time.Second
)

// A LinkState is what is known of a region's connection.
type LinkState struct {
	Connected  bool
	Since      time.Time // of Connected's last change
	Node       string    // name of the relay, while connected
	Generation uint32    // number of connections so far, failed attempts not counted
	Failures   int       // attempts that failed in a row
	Err        error     // why the last connection or attempt ended
	Problem    string    // what the relay says is wrong (Health); empty = nothing
}

// A Link keeps one region connected: it dials, logs in, reads and writes, and
// does it again after a failure. Packets that are queued while it is away are
// sent when it is back, the newest first to survive.
type Link struct {
	region   *netmap.Region
	id       uint16
	dialer   *Dialer
	private  key.NodePrivate
	receiver func() transport.Receiver
	log      *slog.Logger
	routes   *routes
	changed  func() // called after each change of state; must not block

	queue *sendQueue
	state actor.Cell[LinkState]
	live  atomic.Uint32 // generation of the connection that is up; 0 = none
	home  atomic.Bool
	last  atomic.Int64                 // Unix nanoseconds when something was last read, within 5 s
	check atomic.Bool                  // the connection is to be checked
	guard atomic.Pointer[actor.Worker] // of the connection; nil = none
	stats *counters
}

func (*Link) String() string { return "derp.Link" }

// push queues datagrams for a peer in the region.
func (l *Link) push(peer key.NodePublic, bursts []packet.Burst) { l.queue.push(peer, bursts) }

// State returns what is known of the connection.
func (l *Link) State() LinkState { return l.state.Get() }

// setHome tells the relay, now and on every new connection, whether this is
// our home (DERP-118).
func (l *Link) setHome(home bool) {
	if l.home.Swap(home) != home {
		l.queue.poke()
	}
}

// verify makes the client check that its connection still works (DERP-147).
func (l *Link) verify() {
	l.check.Store(true)
	if g := l.guard.Load(); g != nil {
		g.Wake()
	}
}

// Serve keeps the region connected until ctx ends.
func (l *Link) Serve(ctx context.Context) error {
	rx := l.receiver()
	retry := actor.Backoff{Max: retryMax}
	for {
		up, advice, err := l.session(ctx, rx)
		if ctx.Err() != nil {
			l.publish(LinkState{Generation: l.state.Get().Generation, Since: time.Now()})
			return ctx.Err()
		}
		if up >= steady {
			retry.Reset()
		}
		wait := max(retry.Next(), advice)
		l.failed(err, retry.Failures())
		l.log.Debug("derp connection ended", "region", l.id, "err", err, "retry", wait)
		if err := actor.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// session makes one connection and runs it to its end. up is how long it
// lived, advice how long the relay asked us to stay away.
func (l *Link) session(ctx context.Context, rx transport.Receiver) (up, advice time.Duration, err error) {
	conn, err := l.connect(ctx)
	if err != nil {
		return 0, 0, err
	}
	s := &session{Link: l, conn: conn, rx: rx, pongs: make(chan Pong, 1)}
	generation := l.state.Get().Generation + 1
	s.learn = learner{routes: l.routes, here: route{l.id, generation}}
	start := time.Now()
	l.queue.setUp(true)
	err = s.run(ctx)
	l.live.Store(0)
	l.queue.setUp(false)
	l.routes.forgetConn(s.learn.here)
	return time.Since(start), s.advice, err
}

// connect dials the region and sends the login, all within one budget
// (DERP-121).
func (l *Link) connect(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectBudget, errBudget)
	defer cancel()
	stream, err := l.dialer.Dial(ctx, l.region)
	if err != nil {
		return nil, err
	}
	conn, err := Login(ctx, stream, l.private, ClientInfo{CanAckPings: true})
	if err != nil {
		return nil, fmt.Errorf("region %d: %w", l.id, err)
	}
	return conn, nil
}

// connected publishes that the relay has accepted the login.
func (l *Link) connected(conn *Conn, generation uint32) {
	st := LinkState{Connected: true, Since: time.Now(), Generation: generation}
	if n := conn.Node(); n != nil {
		st.Node = n.Name
	}
	l.live.Store(generation)
	l.log.Debug("derp connected", "region", l.id, "node", st.Node, "relay", conn.ServerKey())
	l.publish(st)
}

// failed publishes that there is no connection.
func (l *Link) failed(err error, failures int) {
	old := l.state.Get()
	st := LinkState{Since: old.Since, Generation: old.Generation, Failures: failures, Err: err}
	if old.Connected || old.Since.IsZero() {
		st.Since = time.Now()
	}
	l.publish(st)
}

func (l *Link) publish(st LinkState) {
	l.state.Store(st)
	l.changed()
}

// Errors that end a connection; the region is tried again.
var (
	errBudget      = errors.New("derp: no connection within 10 s")
	errNoPong      = errors.New("derp: relay did not answer a ping within 3 s")
	errStuckWrite  = errors.New("derp: relay takes nothing that is written to it")
	errAddressGone = errors.New("derp: local address of the connection is gone")
)
