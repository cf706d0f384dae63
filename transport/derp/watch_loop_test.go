package derp_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// A ledger counts what a watch loop tells.
type ledger struct {
	sync.Mutex
	present map[key.NodePublic]bool
	added   int
	removed map[derp.GoneReason]int
	wrong   int // removed without having been added
	errs    []error
}

// now returns a copy, once nothing more happens.
func (l *ledger) now() *ledger {
	synctest.Wait()
	l.Lock()
	defer l.Unlock()
	return &ledger{present: maps.Clone(l.present), added: l.added, removed: maps.Clone(l.removed), wrong: l.wrong, errs: slices.Clone(l.errs)}
}

// watch runs a watch loop until stop is called, which returns its error.
func watch(c *derp.Client, ignore key.NodePublic) (l *ledger, stop func() error) {
	l = &ledger{present: map[key.NodePublic]bool{}, removed: map[derp.GoneReason]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- c.RunWatchLoop(ctx, derp.WatchOptions{
			IgnoreServerKey: ignore,
			Add: func(p derp.PeerPresent) {
				l.Lock()
				defer l.Unlock()
				l.added++
				l.present[p.Peer] = true
			},
			Remove: func(g derp.PeerGone) {
				l.Lock()
				defer l.Unlock()
				if !l.present[g.Peer] {
					l.wrong++
				}
				l.removed[g.Reason]++
				delete(l.present, g.Peer)
			},
			NotifyError: func(err error) {
				l.Lock()
				defer l.Unlock()
				l.errs = append(l.errs, err)
			},
		})
	}()
	return l, func() error {
		cancel()
		return <-ended
	}
}

// TestWatchLoop: DERP-172: a watcher survives ten broken connections, and after
// each one its account is right.
func TestWatchLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		clients := []key.NodePublic{key.NewNode().Public(), key.NewNode().Public(), key.NewNode().Public()}
		stopRelay := p.serveScript("one:3340", func(c *script) {
			if c.next(); c.log[1] != derp.FrameWatchConns {
				t.Errorf("first frame after the login is %v, want WatchConns", c.log[1])
			}
			for _, k := range clients {
				c.Write(derp.AppendPeerPresent(nil, derp.PeerPresent{Peer: k, Flags: derp.PresentRegular}))
			}
			c.Write(derp.AppendPeerPresent(nil, derp.PeerPresent{Peer: clients[0]}))
			c.Write(derp.AppendPeerGone(nil, clients[2], derp.GoneDisconnected))
			c.collect()
		})
		c := p.client("one", derp.ClientOptions{})
		book, stop := watch(c, key.NodePublic{})
		for i := range 10 {
			l := book.now()
			if l.added != 4*(i+1) || len(l.present) != 2 || l.removed[derp.GoneDisconnected] != i+1 || l.removed[derp.GoneMeshConnBroke] != 2*i {
				t.Fatalf("connection %d: %d added, %d there, removed %v", i+1, l.added, len(l.present), l.removed)
			}
			p.hangUp()
			l = book.now()
			if len(l.present) != 0 || len(l.errs) != i+1 {
				t.Fatalf("connection %d broke: %d are still there, errors %v", i+1, len(l.present), l.errs)
			}
			time.Sleep(5 * time.Second) // DERP-94
		}
		synctest.Wait()
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		l := book.now()
		if len(l.present) != 0 || l.wrong != 0 || l.removed[derp.GoneMeshConnBroke] != 22 {
			t.Errorf("at the end %d are there, removed %v, %d of them wrongly", len(l.present), l.removed, l.wrong)
		}
		stopRelay()
		c.Close()
	})
}

// TestWatchLoopReconnect: DERP-94: when another call has made a new connection,
// the account begins anew with it.
func TestWatchLoopReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		defer p.serveScript("one:3340", func(c *script) {
			c.next()
			c.Write(derp.AppendPeerPresent(nil, derp.PeerPresent{Peer: key.NewNode().Public()}))
			c.collect()
		})()
		c := p.client("one", derp.ClientOptions{})
		defer c.Close()
		if err := c.Connect(t.Context()); err != nil { // before anyone watches
			t.Fatal(err)
		}
		book, stop := watch(c, key.NodePublic{})
		l := book.now()
		if len(l.present) != 1 {
			t.Fatalf("%d clients, want 1", len(l.present))
		}
		p.hangUp()
		for c.Send(key.NodePublic{}, nil) != nil { // the first fails, the second connects
		}
		synctest.Wait()
		time.Sleep(6 * time.Second) // fake time
		l = book.now()
		if l.added != 2 || len(l.present) != 1 || l.removed[derp.GoneMeshConnBroke] != 1 {
			t.Errorf("%d added, %d there, removed %v", l.added, len(l.present), l.removed)
		}
		stop()
	})
}

// TestWatchLoopSelf: DERP-172: a relay's own name among those to watch is found
// out.
func TestWatchLoopSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		defer p.serveScript("one:3340", quietly)()
		c := p.client("one", derp.ClientOptions{})
		defer c.Close()
		err := c.RunWatchLoop(t.Context(), derp.WatchOptions{
			IgnoreServerKey: p.relay, Add: func(derp.PeerPresent) { t.Error("added") }, Remove: func(derp.PeerGone) { t.Error("removed") },
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestWatchLoopErrors: DERP-172: failed attempts are told, one in 5 s, and a
// client that is closed ends the loop.
func TestWatchLoopErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		c := p.client("one", derp.ClientOptions{})
		book, stop := watch(c, key.NodePublic{})
		time.Sleep(22 * time.Second) // fake time
		l := book.now()
		if len(l.errs) != 5 || !strings.Contains(l.errs[4].Error(), "watch region 1: ") || !strings.Contains(l.errs[4].Error(), "connection refused") {
			t.Errorf("errors %v", l.errs)
		}
		c.Close()
		time.Sleep(5 * time.Second) // fake time
		synctest.Wait()
		if err := stop(); !errors.Is(err, derp.ErrClientClosed) {
			t.Errorf("error %v", err)
		}
	})
}

// TestWatchLoopStops: the loop ends with its context in whatever it does.
func TestWatchLoopStops(t *testing.T) {
	for name, delay := range map[string]time.Duration{"dialing": time.Hour, "receiving": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				p.delays["one:3340"] = delay
				defer p.serveScript("one:3340", quietly)()
				c := p.client("one", derp.ClientOptions{WatchConnections: true})
				defer c.Close()
				_, stop := watch(c, key.NodePublic{})
				synctest.Wait()
				start := time.Now()
				if err := stop(); !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		})
	}
}
