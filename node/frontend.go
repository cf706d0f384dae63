package node

import (
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
)

// Netmap returns the network map in force, nil before the first, and a channel
// that is closed when there may be another. It does not start the node. Package
// netmap, other than this one, may change between minor versions.
func (n *Node) Netmap() (nm *netmap.Netmap, changed <-chan struct{}) {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return nil, nil
	}
	_, changed = r.control.Netmap.Load()
	return r.netmap(), changed
}

// Routes reports whether the node sends packets for a network that is behind a
// peer to that peer, as its preferences say.
func (n *Node) Routes(to netip.Prefix, through *netmap.Peer) bool {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return false
	}
	nm := r.netmap()
	return nm != nil && r.self.policy.Get().Contributes(through, to, nm.Self)
}

// Wake tells the node that the machine has slept, or that its network is another
// one, which it notices by itself only after a while: it opens its sockets anew,
// looks whether its connections are alive, and finds its paths again. It waits for
// none of that.
func (n *Node) Wake() {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return
	}
	r.control.NetworkChanged()
	if p := r.plane.Load(); p != nil {
		p.socket.Rebind()
		p.relays.NetworkChanged()
		p.paths.finder.Request("the machine has woken up")
	}
}
