package derp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

const (
	// watchRetry is the pause of RunWatchLoop after a failure (DERP-94).
	watchRetry = 5 * time.Second
	// maxWatched is how many clients of a relay a watcher keeps account of. A
	// relay that has more is not believed.
	maxWatched = 1 << 20
)

// WatchOptions are what RunWatchLoop tells of its relay's clients. All functions
// are called one at a time.
type WatchOptions struct {
	// IgnoreServerKey is the key of a relay that is not to be watched: our own,
	// whose name is in the list of those to watch.
	IgnoreServerKey key.NodePublic

	Add         func(PeerPresent) // a client is there; repeated when the relay repeats it
	Remove      func(PeerGone)    // a client that was added is not there anymore
	NotifyError func(error)       // a connection or an attempt has failed; nil = do nothing
	Logger      *slog.Logger      // nil discards
}

// RunWatchLoop watches who is connected to the relay until ctx ends, connecting
// as often as it takes. Nobody else may receive from the client. Every client
// that was added has been removed when it returns: those that were still there
// with the reason GoneMeshConnBroke. It returns nil without watching if the
// relay has the key to ignore (DERP-94).
func (c *Client) RunWatchLoop(ctx context.Context, o WatchOptions) error {
	w := newWatcher(o)
	defer w.close()
	defer w.peers.clear()
	for {
		err := c.watchOnce(ctx, w)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errOwnRelay):
			w.log.Info("derp relay is this one: not watched", "relay", c.target())
			return nil
		case errors.Is(err, ErrClientClosed):
			return err
		}
		w.notify(fmt.Errorf("watch %s: %w", c.target(), err))
		if err := actor.Sleep(ctx, watchRetry); err != nil {
			return err
		}
	}
}

// watchOnce watches until a failure.
func (c *Client) watchOnce(ctx context.Context, w *watcher) error {
	defer w.peers.clear()
	if err := c.startWatching(ctx); err != nil {
		return err
	}
	if c.ServerPublicKey() == w.IgnoreServerKey {
		return errOwnRelay
	}
	defer context.AfterFunc(ctx, func() { c.drop(c.current()) })()
	for {
		m, generation, err := c.recv(ctx)
		if err == nil {
			err = w.peers.apply(m, generation)
		}
		if err != nil {
			return err
		}
		w.counted(time.Now())
	}
}

// startWatching connects, and asks who is there now and on every connection to
// come.
func (c *Client) startWatching(ctx context.Context) error {
	c.mu.Lock()
	asked := c.next.watch || c.live.Conn == nil
	c.next.watch = true
	c.mu.Unlock()
	if !asked {
		return c.WatchConnections()
	}
	return c.Connect(ctx)
}

var (
	errOwnRelay = errors.New("derp: relay has the key to ignore")
	errTooMany  = fmt.Errorf("derp: relay says that more than %d clients are connected to it", maxWatched)
)

// A peerSet is the account of who is connected to a relay.
type peerSet struct {
	add        func(PeerPresent)
	remove     func(PeerGone)
	known      map[key.NodePublic]struct{}
	limit      int // of known
	generation int // of the connection that has told
}

// apply takes a message of a connection. Who was known from another connection
// is gone first.
func (s *peerSet) apply(m Message, generation int) error {
	if generation != s.generation {
		s.clear()
		s.generation = generation
	}
	switch m := m.(type) {
	case PeerPresent:
		if _, ok := s.known[m.Peer]; !ok && len(s.known) >= s.limit {
			return errTooMany
		}
		s.known[m.Peer] = struct{}{}
		s.add(m)
	case PeerGone:
		s.gone(m)
	}
	return nil
}

// gone forgets a client, whatever the reason: if the relay does not know it
// (GoneNotHere), packets for it need another way as well.
func (s *peerSet) gone(m PeerGone) {
	if _, ok := s.known[m.Peer]; ok {
		delete(s.known, m.Peer)
		s.remove(m)
	}
}

// clear forgets all.
func (s *peerSet) clear() {
	for k := range s.known {
		s.gone(PeerGone{Peer: k, Reason: GoneMeshConnBroke})
	}
}

// When the number of clients is logged: after the first flood, which is over
// when nothing has come for a while, then now and then (DERP-94).
const (
	floodQuiet = 200 * time.Millisecond
	floodMax   = 2 * time.Second
	countEvery = 10 * time.Second
)

// A watcher is the state of one RunWatchLoop.
type watcher struct {
	WatchOptions
	log   *slog.Logger
	peers peerSet

	count   atomic.Int64 // clients; the timer reads it
	flood   time.Time    // when the first client came
	said    atomic.Bool  // the first flood has been logged
	waiting atomic.Bool  // the timer will log what comes after it
	timer   *time.Timer
}

func newWatcher(o WatchOptions) *watcher {
	return &watcher{
		WatchOptions: o,
		log:          cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		peers:        peerSet{add: o.Add, remove: o.Remove, limit: maxWatched, known: make(map[key.NodePublic]struct{})},
	}
}

// notify tells of a failure.
func (w *watcher) notify(err error) {
	if w.NotifyError != nil {
		w.NotifyError(err)
	}
}

// counted sees to it that a change of the number of clients gets logged.
func (w *watcher) counted(now time.Time) {
	n := int64(len(w.peers.known))
	if w.count.Swap(n) == n {
		return
	}
	if w.timer == nil {
		w.flood, w.timer = now, time.AfterFunc(floodQuiet, w.report)
		return
	}
	if w.said.Load() {
		if !w.waiting.Swap(true) {
			w.timer.Reset(countEvery)
		}
		return
	}
	if d := min(floodQuiet, floodMax-now.Sub(w.flood)); d > 0 {
		w.timer.Reset(d)
	}
}

// report runs on the timer's goroutine.
func (w *watcher) report() {
	w.said.Store(true)
	w.waiting.Store(false)
	w.log.Debug("derp relay watched", "clients", w.count.Load())
}

func (w *watcher) close() {
	if w.timer != nil {
		w.timer.Stop()
	}
}
