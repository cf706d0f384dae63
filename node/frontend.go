package node

import (
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Netmap returns the network map in force, nil before the first, and a channel
// that is closed when there may be another, or Routes may have another answer. It
// does not start the node. Package netmap, other than this one, may change between
// minor versions.
func (n *Node) Netmap() (nm *netmap.Netmap, changed <-chan struct{}) {
	r := n.runtime()
	if r == nil {
		return nil, nil
	}
	d, changed := r.decided.Load()
	return d.netmap, changed
}

// Routes reports whether the node sends packets for a network that is behind a
// peer of its Netmap to that peer, as its preferences say.
func (n *Node) Routes(to netip.Prefix, through *netmap.Peer) bool {
	r := n.runtime()
	if r == nil {
		return false
	}
	d := r.decided.Get()
	return d.netmap != nil && d.policy.Contributes(through, to, d.netmap.Self)
}

// RelayLatency returns how long a packet takes to a relay region and back, by the
// last report on the network around; 0 if that is not known. It does not start the
// node.
func (n *Node) RelayLatency(region int) time.Duration {
	r := n.runtime()
	if r == nil {
		return 0
	}
	return time.Duration(r.regionLatency()[region] * float64(time.Second))
}

// Wake tells the node that the machine has slept, or that its network is another
// one, which it notices by itself only after a while: it opens its sockets anew,
// looks whether its connections are alive, and finds its paths again. It waits for
// none of that.
func (n *Node) Wake() {
	r := n.runtime()
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

// runtime is what runs of the node; nil before Start.
func (n *Node) runtime() *runtime {
	n.life.Lock()
	defer n.life.Unlock()
	return n.run
}
