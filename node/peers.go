package node

import (
	"net/netip"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// Peers returns the other nodes of the tailnet that this one may see, ordered by
// age. It is empty before the first network map.
func (n *Node) Peers() (peers []PeerStatus) {
	nm := n.netmap()
	if nm == nil {
		return nil
	}
	for _, p := range nm.Peers {
		peers = append(peers, n.peerStatus(nm, p))
	}
	return peers
}

// Peer returns the node, this one included, that a text names: by DNS name, full
// or its first label alone, in any case; by one of its own IP addresses; by
// nodekey:…; or by its ID (SVC-46). ok is false when there is none.
func (n *Node) Peer(text string) (peer PeerStatus, ok bool) {
	nm := n.netmap()
	if nm == nil {
		return peer, false
	}
	p := lookupPeer(nm, text)
	if p == nil {
		return peer, false
	}
	return n.peerStatus(nm, p), true
}

func lookupPeer(nm *netmap.Netmap, text string) *netmap.Peer {
	if a, err := netip.ParseAddr(text); err == nil {
		p, _ := nm.PeerByAddr(a.Unmap())
		return p
	}
	if k, err := key.ParseNodePublic(text); err == nil {
		if nm.Self.Key == k {
			return nm.Self
		}
		p, _ := nm.PeerByKey(k)
		return p
	}
	if p, ok := nm.PeerByName(text); ok {
		return p
	}
	p, _ := nm.PeerByStableID(netmap.StableID(text))
	return p
}

// PeerFor returns the peer that packets to an address go to: its owner, or the
// router before it by the routes in force (SVC-41). ok is false when there is
// none.
func (n *Node) PeerFor(a netip.Addr) (peer PeerStatus, ok bool) {
	nm := n.netmap()
	if nm == nil {
		return peer, false
	}
	plane := n.run.plane.Load()
	if plane == nil {
		return peer, false
	}
	p, ok := plane.data.NodeOf(a.Unmap())
	if !ok {
		return peer, false
	}
	return n.peerStatus(nm, p), true
}
