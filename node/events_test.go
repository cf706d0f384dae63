package node

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/control"
)

func TestEventsBeginWithTheNewestAndEndWithStopped(t *testing.T) {
	var n Node
	n.events.publish(Starting{})
	n.events.publish(Running{})
	c := n.Events(t.Context())
	n.events.publish(Stopped{})
	n.events.publish(Running{}) // too late
	var got []Event
	for e := range c {
		got = append(got, e)
	}
	if len(got) != 2 || got[0] != (Running{}) || got[1] != (Stopped{}) {
		t.Errorf("got %v", got)
	}
	if e := <-n.Events(t.Context()); e != (Stopped{}) {
		t.Errorf("a late subscriber got %v", e)
	}
}

// A subscriber that does not read loses the oldest events, and holds nobody up.
func TestEventsDropOldest(t *testing.T) {
	var n Node
	c := n.Events(t.Context())
	for i := range 10 * eventBacklog {
		n.events.publish(NeedsLogin{URL: string(rune('a' + i%26))})
	}
	n.events.publish(Stopped{})
	count, last := 0, Event(nil)
	for e := range c {
		count, last = count+1, e
	}
	if count != eventBacklog || last != (Stopped{}) {
		t.Errorf("%d events, the last %v", count, last)
	}
}

func TestEventsEndWithContext(t *testing.T) {
	var n Node
	ctx, cancel := context.WithCancel(t.Context())
	c := n.Events(ctx)
	cancel()
	for range c {
		t.Error("an event although none was published")
	}
}

// What a node waits for has an URL only if there is one.
func TestNotRunningSaysWhatItWaitsFor(t *testing.T) {
	for want, st := range map[string]lifeState{
		"waiting for a login at https://x":          {state: StateNeedsLogin, authURL: "https://x"},
		"waiting for a Login":                       {state: StateNeedsLogin, problem: control.ErrLoggedOut},
		"waiting for an administrator's approval":   {state: StateNeedsApproval},
		"logged out: waiting for a login at https:": {state: StateNeedsLogin, authURL: "https://x", problem: control.ErrLoggedOut},
	} {
		err := notRunning(context.Canceled, st)
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "at  ") || !errors.Is(err, context.Canceled) {
			t.Errorf("%+v: %v, want %q", st, err, want)
		}
	}
}
