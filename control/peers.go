package control

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A peerEdit makes the next list of peers from the last one. It copies the list
// before it first changes it, and a peer before it changes that: what the
// netmap in force holds stays as it is.
type peerEdit struct {
	peers   []*netmap.Peer // sorted by ID
	old     []*netmap.Peer
	inForce *netmap.Netmap // its peers are shared where they do not differ; may be nil
	keys    bool           // a key may have come in
}

// apply takes a whole list, or deltas in the order that control.md section 8.5
// gives (CTL-34).
func (e *peerEdit) apply(u *update, now time.Time) {
	if u.peers != nil {
		e.replaceAll(u.peers)
		return
	}
	e.remove(u.PeersRemoved)
	for _, p := range u.changed {
		e.put(p)
	}
	for id, seen := range u.PeerSeenChange {
		e.change(id, func(p *netmap.Peer) { p.LastSeen = seenAt(seen, now) })
	}
	for id, online := range u.OnlineChange {
		e.change(id, func(p *netmap.Peer) { p.Online = onlineOf(&online) })
	}
	for _, c := range u.PeersChangedPatch {
		if c != nil {
			e.patch(c, now)
		}
	}
}

func seenAt(seen bool, now time.Time) netmap.Instant {
	if !seen {
		return 0
	}
	return instantOf(now)
}

// replaceAll takes a sorted list. Of two peers with one ID the later counts.
func (e *peerEdit) replaceAll(all []*netmap.Peer) {
	if slices.Equal(all, e.old) {
		return // as servers do that send no deltas
	}
	e.peers, e.keys = all[:0], true // the list is ours
	for i, p := range all {
		if i+1 == len(all) || all[i+1].ID != p.ID {
			e.peers = append(e.peers, p)
		}
	}
}

func (e *peerEdit) remove(ids []netmap.NodeID) {
	if len(ids) == 0 {
		return
	}
	gone := make(map[netmap.NodeID]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	e.own()
	e.peers = slices.DeleteFunc(e.peers, func(p *netmap.Peer) bool { return gone[p.ID] })
}

// put adds or replaces a peer.
func (e *peerEdit) put(p *netmap.Peer) {
	i, known := e.find(p.ID)
	if known && e.peers[i] == p {
		return
	}
	e.own()
	e.keys = e.keys || !known || e.peers[i].Key != p.Key
	if known {
		e.peers[i] = p
	} else {
		e.peers = slices.Insert(e.peers, i, p)
	}
}

// change lets f change a copy of a known peer; an unknown one is ignored.
func (e *peerEdit) change(id netmap.NodeID, f func(*netmap.Peer)) {
	i, known := e.find(id)
	if !known {
		return
	}
	p := *e.peers[i]
	f(&p)
	if !samePeer(&p, e.peers[i]) {
		e.put(&p)
	}
}

// patch follows control.md section 8.6 (CTL-35).
func (e *peerEdit) patch(c *PeerChange, now time.Time) {
	e.change(c.NodeID, func(p *netmap.Peer) {
		p.HomeDERP = cmp.Or(c.DERPRegion, p.HomeDERP)
		p.Cap = cmp.Or(c.Cap, p.Cap)
		if c.CapMap != nil {
			p.CapMap = c.CapMap
		}
		if c.Endpoints != nil {
			p.Endpoints = exact(slices.DeleteFunc(c.Endpoints, func(a netip.AddrPort) bool { return !a.IsValid() }))
		}
		if len(c.KeySignature) > 0 {
			p.KeySignature = c.KeySignature
		}
		setIf(&p.Key, c.Key)
		setIf(&p.Disco, c.DiscoKey)
		if c.Online != nil {
			p.Online = onlineOf(c.Online)
		}
		if c.LastSeen != nil {
			p.LastSeen = instantOf(*c.LastSeen)
		}
		if c.KeyExpiry != nil {
			p.KeyExpiry = instantOf(*c.KeyExpiry)
			p.Expired = p.Expired && !c.KeyExpiry.After(now) // a renewed key lives again
		}
	})
}

func setIf[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (e *peerEdit) find(id netmap.NodeID) (int, bool) {
	return slices.BinarySearchFunc(e.peers, id, func(p *netmap.Peer, id netmap.NodeID) int { return cmp.Compare(p.ID, id) })
}

// own makes the list one that may be changed.
func (e *peerEdit) own() {
	if len(e.peers) > 0 && len(e.old) > 0 && &e.peers[0] == &e.old[0] {
		e.peers = slices.Clone(e.old)
	}
}

// sane returns the list without what no good server sends: peers without a key,
// with our key or that of another, and routes that lead our own traffic away
// (control.md section 15, rule 5).
func (e *peerEdit) sane(self *netmap.Peer, selfChanged bool) []*netmap.Peer {
	if e.keys || selfChanged {
		e.dropDuplicates(self)
	}
	for i := range e.peers {
		known := !selfChanged && i < len(e.old) && e.old[i] == e.peers[i]
		if known {
			continue
		}
		if p := withoutForbidden(e.peers[i], self); p != e.peers[i] {
			e.own()
			e.peers[i] = e.sharing(p)
		}
	}
	return e.peers
}

// sharing returns the peer in force if it does not differ from p.
func (e *peerEdit) sharing(p *netmap.Peer) *netmap.Peer {
	if e.inForce == nil {
		return p
	}
	if known, ok := e.inForce.PeerByID(p.ID); ok && samePeer(known, p) {
		return known
	}
	return p
}

// dropDuplicates keeps the first of several peers with one key.
func (e *peerEdit) dropDuplicates(self *netmap.Peer) {
	seen := make(map[key.NodePublic]struct{}, len(e.peers)+2)
	seen[key.NodePublic{}] = struct{}{}
	seen[self.Key] = struct{}{}
	bad := func(p *netmap.Peer) bool {
		n := len(seen)
		seen[p.Key] = struct{}{}
		return len(seen) == n
	}
	first := slices.IndexFunc(e.peers, bad)
	if first < 0 {
		return
	}
	kept := slices.Clone(e.peers[:first])
	for _, p := range e.peers[first+1:] {
		if !bad(p) {
			kept = append(kept, p)
		}
	}
	e.peers = kept
}

// withoutForbidden returns p, or a copy without the routes that cover one of our
// own or the service addresses. A default route covers all and is a matter of
// choosing an exit node instead.
func withoutForbidden(p, self *netmap.Peer) *netmap.Peer {
	forbidden := func(r netip.Prefix) bool {
		if r.Bits() == 0 {
			return false
		}
		return slices.ContainsFunc(serviceAddrs, r.Contains) ||
			slices.ContainsFunc(self.Addresses, func(own netip.Prefix) bool { return r.Contains(own.Addr()) })
	}
	if !slices.ContainsFunc(p.AllowedIPs, forbidden) {
		return p
	}
	clean := *p
	clean.AllowedIPs = exact(slices.DeleteFunc(slices.Clone(p.AllowedIPs), forbidden))
	return &clean
}
