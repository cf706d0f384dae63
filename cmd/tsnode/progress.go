package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed94491740/tsnode/node"
)

// How often the progress line is looked after, and how long a node may take before
// there is one: most starts are done by then.
const (
	progressEvery = 250 * time.Millisecond
	progressAfter = 500 * time.Millisecond
)

// A progress is an actor that tells on a console what the node waits for until it
// can be reached.
type progress struct {
	status func() *node.Status
	tell   func(string) // replaces the line; empty: none
}

// String names the actor.
func (*progress) String() string { return "progress" }

// Serve tells until the node can be reached or ctx ends.
func (p *progress) Serve(ctx context.Context) error {
	defer p.tell("")
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			text := waitsFor(p.status())
			if text == "" {
				return nil
			}
			if after := now.Sub(began); after >= progressAfter {
				p.tell(fmt.Sprintf("tsnode: waiting for %s (%v)", text, after.Truncate(time.Second)))
			}
		}
	}
}

// waitsFor says what a node waits for until it can be reached; empty: nothing.
func waitsFor(s *node.Status) string {
	switch {
	case s.State == node.StateNeedsLogin && s.AuthURL == "":
		return "a login: run 'tsnode login'"
	case s.State == node.StateNeedsLogin:
		return "a login in the browser"
	case s.State == node.StateNeedsApproval:
		return "the approval of an administrator"
	case s.State != node.StateRunning && s.ControlError != "":
		return "the control server, which does not answer"
	case s.State != node.StateRunning:
		return "the control server"
	case !s.Relayed && s.DirectPaths == 0:
		return "a relay"
	}
	return ""
}
