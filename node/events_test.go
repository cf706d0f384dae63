package node

import (
	"context"
	"testing"
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
