package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
)

// modern lets the clock of a bubble, which begins in 2000, show a time at which
// keys expire (control.md section 9.3).
func modern() { time.Sleep(time.Until(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))) } // fake time

// An eventLog takes down the events of a node.
type eventLog struct {
	mu  sync.Mutex
	all []Event
}

// logEvents takes down the events of m from now on.
func logEvents(m *member) *eventLog {
	l := new(eventLog)
	events := m.Events(context.Background())
	go func() {
		for e := range events {
			l.mu.Lock()
			l.all = append(l.all, e)
			l.mu.Unlock()
		}
	}()
	return l
}

// take returns what has come since the last time, by the types' names. Left out is
// what these tests are not about: Starting, and problems with a server that is to
// be asked again.
func (l *eventLog) take() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, e := range l.all {
		switch e := e.(type) {
		case Starting:
		case KeyExpiring:
			names = append(names, fmt.Sprintf("KeyExpiring %v", e.Left.Round(time.Minute)))
		case ControlProblem:
			switch {
			case errors.Is(e.Err, ErrNodeDeleted):
				names = append(names, "removed")
			case errors.Is(e.Err, ErrBadAuthKey):
				names = append(names, "bad auth key")
			}
		default:
			names = append(names, strings.TrimPrefix(fmt.Sprintf("%T", e), "node."))
		}
	}
	l.all = nil
	return strings.Join(names, ", ")
}

// wants compares what has come since the last time.
func (l *eventLog) wants(t *testing.T, when, want string) {
	t.Helper()
	if got := l.take(); got != want {
		t.Errorf("%s: events %q, want %q", when, got, want)
	}
}

// arrives waits until packets of the flow arrive that were sent from now on.
func (f *testFlow) arrives(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	f.at.mu.Lock()
	before := len(f.arrived)
	f.at.mu.Unlock()
	return until(t, limit, func() bool {
		f.at.mu.Lock()
		defer f.at.mu.Unlock()
		return len(f.arrived) > before+10
	})
}

// rests reports whether nothing of the flow arrives for a second.
func (f *testFlow) rests() bool {
	time.Sleep(time.Second) // fake time: for what is under way
	f.at.mu.Lock()
	before := len(f.arrived)
	f.at.mu.Unlock()
	time.Sleep(time.Second) // fake time
	f.at.mu.Lock()
	defer f.at.mu.Unlock()
	return len(f.arrived) == before
}

// onModernGround runs a test on a ground whose clock is one of today.
func onModernGround(t *testing.T, c devnet.Config, test func(t *testing.T, g *ground)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		modern()
		g := newGround(t, c)
		defer g.close()
		test(t, g)
	})
}

// withKey sets the auth key of a member.
func (g *ground) withKey(o devnet.KeyOptions) func(*Node) {
	return func(n *Node) { n.AuthKey = g.tailnet.AuthKey(o) }
}

func (g *ground) addHost(name string) *simnet.Host {
	return g.net.AddHost(name, simnet.HostConfig{Link: wide})
}
