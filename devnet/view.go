package devnet

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/netmap"
)

// peersPerFrame is how many Nodes one frame carries at most. The first frames of
// a very large tailnet are split by it: 64 MiB is all that a client must take
// (control.md section 8.2), and a Node is about 800 bytes.
const peersPerFrame = 40_000

// A view is what one node has been told on its map stream, and so what to tell
// it next. Only the owner of the tailnet uses it.
type view struct {
	id     netmap.NodeID
	at     netip.Addr // of this server and its relays, as the node knows it
	handle string     // of the session; empty: sessions are not offered
	seq    int64
	greet  bool // the next frame begins a stream

	told   bool // the first frame is out
	self   selfTold
	peers  map[netmap.NodeID]peerTold
	users  map[netmap.UserID]netmap.UserProfile
	filter uint64 // version
	dns    *netmap.DNSConfig
	derp   bool
}

// selfTold is which version of itself a node has been told.
type selfTold struct {
	version uint64
	live    *live
	attrs   netmap.CapMap
}

// peerTold is which version of a peer a node has been told.
type peerTold struct {
	version uint64
	live    *live
}

func newView(t *tailnet, id netmap.NodeID, at netip.Addr) *view {
	v := &view{id: id, at: at, peers: make(map[netmap.NodeID]peerTold), users: make(map[netmap.UserID]netmap.UserProfile)}
	if !t.cfg.Headscale {
		v.handle = randomHex(8)
	}
	return v
}

// resumes reports whether a request continues this view: it has all that was
// told (control.md section 8.8).
func (v *view) resumes(req *control.MapRequest) bool {
	return v != nil && v.handle != "" && v.handle == req.MapSessionHandle && v.seq == req.MapSessionSeq
}

// next makes the frame that brings the node up to date, nil when it is. With
// more set there is another one to come.
func (v *view) next(t *tailnet, m *member, now time.Time) (resp *control.MapResponse, more bool) {
	resp = &control.MapResponse{}
	changed := v.setSelf(resp, t, m)
	changed = v.setFilter(resp, t, m) || changed
	peers, more := v.setPeers(resp, t, m)
	changed = v.setRest(resp, t) || peers || changed
	if !changed && !v.greet {
		return nil, false
	}
	if v.greet {
		resp.MapSessionHandle = v.handle
	}
	if v.handle != "" {
		v.seq++
		resp.Seq = v.seq
	}
	resp.ControlTime = now.UTC()
	v.greet, v.told = false, true
	return resp, more
}

func (v *view) setSelf(resp *control.MapResponse, t *tailnet, m *member) bool {
	a := t.accessOf(m) // may change m: it chooses who carries routes
	same := v.self.version == m.version && v.self.live == m.live && reflect.DeepEqual(v.self.attrs, a.attrs)
	if v.told && same {
		return false
	}
	v.self = selfTold{m.version, m.live, a.attrs}
	resp.Node = m.forSelf(t.cfg.Domain, a.attrs)
	v.setUser(resp, t, m.owner())
	return true
}

// setFilter adds the packet filter if it has changed; an empty one is a value.
func (v *view) setFilter(resp *control.MapResponse, t *tailnet, m *member) bool {
	a := t.accessOf(m)
	if v.told && v.filter == a.version {
		return false
	}
	v.filter = a.version
	if t.cfg.Headscale {
		resp.PacketFilters = map[string][]netmap.FilterRule{"base": a.filter}
	} else {
		resp.PacketFilter = a.filter
	}
	return true
}

// setPeers adds peers that are new, changed or gone, and their owners.
func (v *view) setPeers(resp *control.MapResponse, t *tailnet, m *member) (changed, more bool) {
	visible := t.accessOf(m).peers
	if m.Approved {
		visible = slices.Concat(visible, t.faults.synthetic)
	}
	var whole []*control.Node
	for _, p := range visible {
		if len(whole) == peersPerFrame {
			more = true
			break
		}
		if n := v.setPeer(resp, t, p); n != nil {
			whole = append(whole, n)
		}
	}
	if !more && len(v.peers) > len(visible) {
		v.removeAllBut(resp, visible)
	}
	if v.told {
		resp.PeersChanged = whole
	} else {
		resp.Peers = whole
	}
	return len(whole)+len(resp.PeersChangedPatch)+len(resp.PeersRemoved) > 0, more
}

// setPeer adds a patch of a peer, or returns it to be told as a whole.
func (v *view) setPeer(resp *control.MapResponse, t *tailnet, p *member) *control.Node {
	old, known := v.peers[p.ID]
	if known && old.version == p.version && old.live == p.live {
		return nil
	}
	v.peers[p.ID] = peerTold{p.version, p.live}
	if known && old.version == p.version {
		if patch := old.live.patch(p.ID, p.live); patch != nil {
			resp.PeersChangedPatch = append(resp.PeersChangedPatch, patch)
			return nil
		}
	}
	v.setUser(resp, t, p.owner())
	return p.forPeers(t.cfg.Domain)
}

func (v *view) removeAllBut(resp *control.MapResponse, visible []*member) {
	stays := make(map[netmap.NodeID]bool, len(visible))
	for _, p := range visible {
		stays[p.ID] = true
	}
	for id := range v.peers {
		if !stays[id] {
			delete(v.peers, id)
			resp.PeersRemoved = append(resp.PeersRemoved, id)
		}
	}
	slices.Sort(resp.PeersRemoved)
}

// setUser adds the profile of an owner whom the node does not know.
func (v *view) setUser(resp *control.MapResponse, t *tailnet, id netmap.UserID) {
	if id == 0 {
		return // of synthetic peers
	}
	if _, known := v.users[id]; !known {
		p := t.profile(id)
		v.users[id] = p
		resp.UserProfiles = append(resp.UserProfiles, p)
	}
}

// setRest adds what is the same for all nodes.
func (v *view) setRest(resp *control.MapResponse, t *tailnet) (changed bool) {
	if v.dns != t.dns {
		v.dns, resp.DNSConfig = t.dns, t.dns
		changed = true
	}
	if !v.derp {
		v.derp, resp.DERPMap = true, derpMap(t.regions, v.at)
		changed = true
	}
	if v.told {
		return changed
	}
	resp.Domain = t.cfg.Domain
	if t.cfg.Headscale {
		resp.Domain = v.at.String()
	}
	resp.CollectServices = control.False
	resp.Health = []string{}
	return true
}

// patch returns the change from l to new; nil when a patch cannot say it
// (control.md section 8.6: zero means unchanged).
func (l *live) patch(id netmap.NodeID, new *live) *control.PeerChange {
	if new.HomeDERP == 0 && l.HomeDERP != 0 || new.Disco.IsZero() && !l.Disco.IsZero() {
		return nil
	}
	c := &control.PeerChange{NodeID: id}
	if l.HomeDERP != new.HomeDERP {
		c.DERPRegion = new.HomeDERP
	}
	if l.Cap != new.Cap {
		c.Cap = new.Cap
	}
	if l.Disco != new.Disco {
		c.DiscoKey = &new.Disco
	}
	if !slices.Equal(l.Endpoints, new.Endpoints) {
		c.Endpoints = append([]netip.AddrPort{}, new.Endpoints...) // never nil: none is a value
	}
	if l.Online != new.Online {
		c.Online = &new.Online
	}
	if !new.LastSeen.IsZero() && !l.LastSeen.Equal(new.LastSeen) {
		c.LastSeen = &new.LastSeen
	}
	return c
}
