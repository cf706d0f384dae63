package node

import "github.com/seed94491740/tsnode/host"

// onLink tells the parts of the node that the host's network has changed
// (PATH-63). The first look at the network is no change.
func (k *pathKeeper) onLink(old, link host.Link) {
	if old.Interfaces == nil {
		return
	}
	p := k.plane
	switch {
	case link.Major != old.Major:
		k.log.Info("the host's network has changed", "up", link.Up, "interface", link.Default.Interface)
		if link.Slept != old.Slept {
			p.data.ExpireAll() // peers have dropped our sessions meanwhile (WG-45)
		}
		p.socket.Rebind()
		p.relays.NetworkChanged()
		k.control.NetworkChanged()
		p.paths.finder.Request("major change of the network")
	case link.Minor != old.Minor:
		p.paths.finder.Request("minor change of the network")
	}
}
