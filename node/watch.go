package node

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/netmap"
)

// relayPatience is how long a node with a netmap waits for its home relay before
// it counts as running without one.
const relayPatience = 5 * time.Second

// A lifeState is where the node is in its life; it changes as a whole.
type lifeState struct {
	state   State
	authURL string
	problem error // with control; nil while all is well
	final   error // the node has ended
}

// watcher is the actor that follows control's status, the netmap and the
// relays: it gives netstack its addresses, and publishes state and events.
type watcher struct{ *runtime }

// String names the actor.
func (*watcher) String() string { return "node.watcher" }

// A watch is the state of watcher.Serve.
type watch struct {
	*runtime
	netmap      *netmap.Netmap
	since       time.Time // when the first netmap came that lets the node talk to others
	life        keyLife
	locked      *TailnetLocked // what was told last; nil: tailnet lock is off
	lastProblem string
}

// Serve follows until ctx ends.
func (w *watcher) Serve(ctx context.Context) error {
	st := &watch{runtime: w.runtime}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		status, statusChanged := w.control.Status.Load()
		nm, netmapChanged := w.control.Netmap.Load()
		relays, relaysChanged := w.relays.Load()
		link, linkChanged := w.monitor.Link().Load() // after a sleep, too
		now := time.Now()
		st.onNetmap(ctx, nm, now)
		w.reroute(nm, link)
		st.onKey(status, now)
		st.onLock()
		st.onStatus(status, relays, now)
		timer.Reset(st.wait(now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-statusChanged:
		case <-netmapChanged:
		case <-relaysChanged:
		case <-linkChanged:
		case <-timer.C:
		}
	}
}

// onNetmap passes on what a new netmap changes.
func (w *watch) onNetmap(ctx context.Context, nm *netmap.Netmap, now time.Time) {
	if nm == w.netmap {
		return
	}
	w.netmap = nm
	if nm == nil || nm.Self == nil {
		w.since = time.Time{}
		return
	}
	switch {
	case barred(nm, nm.Self.Key):
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = now
	}
	if w.services != nil {
		own := addresses(nm) // the first of a family is the one that dials start from
		if err := w.services.SetAddresses(append(own, dns.ServiceAddrs(nm)...)); err != nil {
			w.log.Error("netstack does not take the node's addresses", "err", err)
		}
		w.addressed.Store(nm)
		w.openPeerAPI(nm)
	}
	if dm := nm.DERP; dm != w.derpMap.Get() && !reflect.DeepEqual(dm, w.derpMap.Get()) {
		w.derpMap.Store(dm)
		w.resort.remember(ctx, dm)
	}
	w.profile.identify(ctx, nm)
}

// onLock tells that tailnet lock is on, and when more is known of it.
func (w *watch) onLock() {
	if w.netmap == nil || !w.netmap.LockEnabled {
		w.locked = nil
		return
	}
	if now := w.runtime.locked(w.netmap); w.locked == nil || *w.locked != now {
		w.locked = &now
		w.events.publish(now)
	}
}

// onKey publishes the events of the node key's life, before those of the states
// that they lead to.
func (w *watch) onKey(status control.Status, now time.Time) {
	for _, e := range w.life.observe(w.netmap, errors.Is(status.Err, control.ErrKeyExpired), now) {
		w.events.publish(e)
	}
}

// onStatus publishes the node's state and the events of its change.
func (w *watch) onStatus(status control.Status, relays relayState, now time.Time) {
	next := lifeState{state: w.stateOf(status, relays, now), authURL: status.AuthURL, problem: status.Err}
	old := w.lifeState.Get()
	if old.final != nil {
		return
	}
	if next.state != old.state || next.authURL != old.authURL || !errors.Is(next.problem, old.problem) {
		w.lifeState.Store(next)
	}
	w.report(status.Err)
	if next.state != old.state || next.authURL != old.authURL {
		w.announce(next)
	}
}

// stateOf is the node's state (control.md section 14.4). Once it runs it stays
// running while the pipeline changes hands.
func (w *watch) stateOf(status control.Status, relays relayState, now time.Time) State {
	switch status.State {
	case control.StateNeedsLogin, control.StateLoggedOut:
		return StateNeedsLogin
	case control.StateNeedsApproval:
		return StateNeedsApproval
	case control.StateRunning:
		old := w.lifeState.Get().state
		if w.since.IsZero() || old != StateRunning && (!w.reachable(relays, now) || w.tableBehind()) {
			return StateStarting
		}
		return StateRunning
	}
	return StateStarting
}

// reachable reports whether peers can reach the node, or will not for a while.
func (w *watch) reachable(relays relayState, now time.Time) bool {
	none := w.netmap.DERP == nil || len(w.netmap.DERP.Regions) == 0
	return none || relays.connected || now.Sub(w.since) >= relayPatience
}

// tableBehind reports whether the packet pipeline of the key in force has not
// taken the first netmap yet.
func (w *watch) tableBehind() bool {
	p := w.plane.Load()
	return p == nil || p.ended.Load() || p.key != w.netmap.Self.Key || p.data.Applied().Get() == nil
}

// wait returns when to look again without a change.
func (w *watch) wait(now time.Time) time.Duration {
	if w.lifeState.Get().state == StateStarting && !w.since.IsZero() {
		return 10 * time.Millisecond
	}
	return w.life.wait(w.netmap, now)
}

// report publishes a problem with control once, until it changes. An expired key
// has events of its own.
func (w *watch) report(err error) {
	text := ""
	if errors.Is(err, control.ErrKeyExpired) {
		err = nil
	}
	if err != nil {
		text = err.Error()
	}
	if text == w.lastProblem {
		return
	}
	w.lastProblem = text
	if err != nil {
		w.troubles.Add(1)
		w.events.publish(ControlProblem{Err: err})
	}
}

// announce publishes the event of a new state.
func (w *watch) announce(s lifeState) {
	switch s.state {
	case StateNeedsLogin:
		if s.authURL == "" {
			return
		}
		if w.userLog != nil {
			w.userLog("To join the tailnet, visit %s", s.authURL)
		}
		w.events.publish(NeedsLogin{URL: s.authURL})
	case StateNeedsApproval:
		if w.userLog != nil {
			w.userLog("An administrator of the tailnet must approve this node")
		}
		w.events.publish(NeedsApproval{})
	case StateStarting:
		w.events.publish(Starting{})
	case StateRunning:
		w.log.Info("running", "name", w.netmap.Self.Name, "addresses", addresses(w.netmap))
		w.events.publish(Running{})
	}
}
