package node

import (
	"context"

	"github.com/seed94491740/tsnode/host"
)

// linkWatcher is the actor that tells the parts of the node when the host's
// network has changed (PATH-63).
type linkWatcher struct{ *runtime }

// String names the actor.
func (linkWatcher) String() string { return "node.linkWatcher" }

// Serve follows the monitor until ctx ends.
func (w linkWatcher) Serve(ctx context.Context) error {
	old, changed := w.monitor.Link().Load()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		var link host.Link
		link, changed = w.monitor.Link().Load()
		w.onLink(old, link)
		old = link
	}
}

// onLink acts on what has changed. The first look at the network is no change.
func (w linkWatcher) onLink(old, link host.Link) {
	p := w.plane.Load()
	if p == nil || old.Interfaces == nil {
		return
	}
	switch {
	case link.Major != old.Major:
		w.log.Info("the host's network has changed", "up", link.Up, "interface", link.Default.Interface)
		if link.Slept != old.Slept {
			p.data.ExpireAll() // peers have dropped our sessions meanwhile (WG-45)
		}
		p.socket.Rebind()
		p.relays.NetworkChanged()
		w.control.NetworkChanged()
		p.paths.finder.Request("major change of the network")
	case link.Minor != old.Minor:
		p.paths.finder.Request("minor change of the network")
	}
}
