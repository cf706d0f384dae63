// Package mesh joins the relays of a DERP region. A Link is a relay's
// connection to one of the others: it watches which clients are there and takes
// packets for them.
//
// It owns the queue to the other relay, and an exact account of what became of
// each packet. Which packets take the link is up to the relay, which treats it
// as a [relay.Forwarder]. A relay has a Link to each other one of its region,
// and they have theirs back: packets go one way in each.
//
// Source: doc/protocol/derp.md section 9.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// Times of a link.
const (
	retryAfter    = 5 * time.Second  // a failed attempt, a broken connection; DERP-94
	connectBudget = 10 * time.Second // of an attempt, login included; DERP-121
	writeLimit    = 5 * time.Second  // for one write; DERP-31
	logEvery      = time.Minute      // between log lines of attempts that fail for changing reasons
)

// A Server is our relay, as a link sees it; a *relay.Server is one.
type Server interface {
	PublicKey() key.NodePublic
	AddForwarder(dst key.NodePublic, f relay.Forwarder)
	RemoveForwarder(dst key.NodePublic, f relay.Forwarder)
}

// A Config is what a link needs to know.
type Config struct {
	Server  Server          // our relay
	Private key.NodePrivate // its key, which the link logs in with (DERP-85)
	MeshKey key.Mesh        // what all relays of the region share
	URL     string          // of the other relay, such as "https://derp1b.example.com/derp"

	Dialer     *derp.Dialer // nil dials from this host, without a proxy
	QueueBytes int          // of frames that wait for the other relay; 0 = DefaultQueueBytes
	Logger     *slog.Logger // nil discards
}

// A Link is a relay's connection to another one of its region. It is a
// relay.Forwarder of that one's clients.
type Link struct {
	server  Server
	private key.NodePrivate
	info    derp.ClientInfo
	url     *url.URL
	name    string // of the other relay, for people
	dialer  derp.Dialer
	log     *slog.Logger

	queue     *queue
	stats     counters
	state     *actor.Cell[state]
	peerCount atomic.Int64
}

// NewLink returns a link, which Serve brings to life.
func NewLink(c Config) (*Link, error) {
	u, err := derp.ParseURL(c.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("mesh: %w", err)
	case c.MeshKey.IsZero():
		return nil, fmt.Errorf("mesh: link to %s: the mesh key is missing: without it the relay there hangs up", c.URL)
	}
	l := &Link{
		server:  c.Server,
		private: c.Private,
		info:    derp.ClientInfo{MeshKey: c.MeshKey, CanAckPings: true},
		url:     u,
		name:    u.Redacted(),
		dialer:  derp.Dialer{Network: host.OS{}},
		log:     c.Logger,
		state:   actor.NewCell(state{}),
	}
	if c.Dialer != nil {
		l.dialer = *c.Dialer
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	limit := c.QueueBytes
	if limit <= 0 {
		limit = DefaultQueueBytes
	}
	l.queue = newQueue(limit, &l.stats)
	l.queue.close()
	return l, nil
}

// String names the link by its URL.
func (l *Link) String() string { return "mesh.Link(" + l.name + ")" }

var errDown = errors.New("mesh: no connection to the other relay")

// ForwardPacket queues a packet of the client src of our relay for the client
// dst of the other one. It never blocks: a full queue loses its oldest packets.
func (l *Link) ForwardPacket(src, dst key.NodePublic, data []byte) error {
	if !l.queue.push(src, dst, data) {
		return errDown
	}
	return nil
}

// Serve keeps the link connected until ctx ends. A URL that leads to our own
// relay is left alone: a list of a region's relays may be the same on all of
// them.
func (l *Link) Serve(ctx context.Context) error {
	var told failureLog
	for {
		wasUp, err := l.connectAndRun(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errSelf) {
			l.log.Info("mesh link leads to this relay itself: not used", "url", l.name)
			l.state.Store(state{self: true})
			<-ctx.Done()
			return ctx.Err()
		}
		l.state.Store(state{lastError: err.Error()})
		if told.isNews(err.Error(), wasUp, time.Now()) {
			l.log.Warn("mesh link is down; it is tried again every 5 s", "url", l.name, "err", err)
		}
		if err := actor.Sleep(ctx, retryAfter); err != nil {
			return err
		}
	}
}

// A failureLog chooses the failures that are logged: a relay may stay away for
// days.
type failureLog struct {
	text string    // of the last one
	at   time.Time // when it was
}

// isNews reports whether a failure is to be logged: one that ends a link that
// was up, and another one than before, at most once a minute.
func (f *failureLog) isNews(text string, wasUp bool, now time.Time) bool {
	if !wasUp && (text == f.text || now.Sub(f.at) < logEvery) {
		return false
	}
	f.text, f.at = text, now
	return true
}

var errSelf = errors.New("mesh: the URL leads to our own relay")

// connectAndRun makes one connection and uses it until it breaks.
func (l *Link) connectAndRun(ctx context.Context) (wasUp bool, err error) {
	conn, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if conn.ServerKey() == l.server.PublicKey() {
		return false, errSelf
	}
	l.stats.connects.Add(1)
	s := newSession(l, conn)
	err = s.serve(ctx)
	return s.up, err
}

// connect logs in and asks who is there (DERP-85).
func (l *Link) connect(ctx context.Context) (*derp.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectBudget)
	defer cancel()
	stream, err := l.dialer.DialURL(ctx, l.url)
	if err != nil {
		return nil, err
	}
	conn, err := derp.Login(ctx, stream, l.private, l.info)
	if err != nil {
		return nil, err
	}
	if err := conn.WatchConnections(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
