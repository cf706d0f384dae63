package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// prefix is short for what addresses are made of.
type prefix = netip.Prefix

// keepAliveEvery is how often a quiet stream shows a sign of life (control.md
// section 8.3).
const keepAliveEvery = 55 * time.Second

var errUnknownNode = errors.New("node not found")

// A stream is one map poll.
type stream struct {
	cancel context.CancelFunc
	raw    chan []byte // frames a test has sent; holds a few
}

// serveMap answers a map request: a lite update or the stream (control.md
// section 8).
func (n *Net) serveMap(ctx context.Context, w http.ResponseWriter, machine key.MachinePublic, req *control.MapRequest) error {
	n.mu.Lock()
	m := n.byKey(req.NodeKey)
	if m == nil || m.Machine != machine {
		n.mu.Unlock()
		return errUnknownNode
	}
	if !req.Stream || n.cfg.Headscale {
		n.update(m, req)
	}
	n.mu.Unlock()
	if !req.Stream && req.OmitPeers {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	fw, err := control.NewFrameWriter(w, req.Compress)
	if err != nil {
		return err
	}
	v := &view{net: n, id: m.ID, writer: fw, flush: http.NewResponseController(w)}
	if !req.Stream {
		_, err := v.send(ctx)
		return err
	}
	return v.stream(ctx, m, req)
}

// update takes what a node reports; n.mu is held.
func (n *Net) update(m *member, req *control.MapRequest) {
	home := m.HomeDERP
	if req.Hostinfo != nil && req.Hostinfo.NetInfo != nil && req.Hostinfo.NetInfo.PreferredDERP != 0 {
		home = req.Hostinfo.NetInfo.PreferredDERP
	}
	same := m.HomeDERP == home && m.Disco == req.DiscoKey && m.Cap == req.Version && slices.Equal(m.Endpoints, req.Endpoints) && sameHostinfo(m.Hostinfo, req.Hostinfo)
	if same {
		return
	}
	m.HomeDERP, m.Disco, m.Cap, m.Endpoints = home, req.DiscoKey, req.Version, req.Endpoints
	if req.Hostinfo != nil {
		m.Hostinfo = req.Hostinfo
	}
	n.touch(m)
}

// sameHostinfo compares what others can see of a Hostinfo; b may be nil.
func sameHostinfo(a, b *control.Hostinfo) bool {
	if b == nil {
		return true
	}
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}

// A view is what one stream has told its node so far.
type view struct {
	net    *Net
	id     netmap.NodeID
	writer *control.FrameWriter
	flush  *http.ResponseController

	first   bool // has been sent
	self    uint64
	peers   map[netmap.NodeID]uint64 // versions
	filter  string                   // as JSON
	policy  *policy
	derp    string
	users   map[netmap.UserID]bool
	derpMap *netmap.DERPMap
}

// stream sends the map and then what changes until ctx ends.
func (v *view) stream(ctx context.Context, m *member, req *control.MapRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &stream{cancel: cancel, raw: make(chan []byte, 16)}
	v.net.attach(m, s, req)
	defer v.net.detach(m, s)
	ticker := time.NewTicker(keepAliveEvery)
	defer ticker.Stop()
	for {
		_, changed := v.net.generation.Load()
		gone, err := v.send(ctx)
		if err != nil || gone {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case body := <-s.raw:
			err = v.write(func() error { return v.writer.WriteRaw(body) })
		case <-ticker.C:
			err = v.write(func() error { return v.writer.WriteMap(&control.MapResponse{KeepAlive: true}) })
		}
		if err != nil {
			return err
		}
	}
}

// attach makes s the member's stream; an older one ends (control.md section
// 8.1).
func (n *Net) attach(m *member, s *stream, req *control.MapRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.stream != nil {
		m.stream.cancel()
	}
	m.stream = s
	if m.forget != nil {
		m.forget.Stop()
		m.forget = nil
	}
	m.Cap = req.Version
	n.touch(m)
}

// detach notes that a member has gone; an ephemeral one is forgotten after a
// while.
func (n *Net) detach(m *member, s *stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.stream != s {
		return
	}
	m.stream, m.LastSeen = nil, time.Now().UTC()
	if n.members[m.ID] != m || n.closed {
		return
	}
	n.touch(m)
	if m.Ephemeral {
		m.forget = time.AfterFunc(n.cfg.EphemeralTimeout, func() { n.forgetIfAway(m) })
	}
}

func (n *Net) forgetIfAway(m *member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.stream == nil && n.members[m.ID] == m && !n.closed {
		n.remove(m)
	}
}

// endStreams ends all map streams, as a server that goes away.
func (n *Net) endStreams() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.members {
		if m.stream != nil {
			m.stream.cancel()
		}
	}
}

// send writes what has changed since the last call; gone says that the node is
// no member any more.
func (v *view) send(ctx context.Context) (gone bool, err error) {
	resp, delay := v.next()
	if resp == nil {
		return true, nil
	}
	if err := actor.Sleep(ctx, delay); err != nil {
		return false, err
	}
	return false, v.write(func() error { return v.writer.WriteMap(resp) })
}

func (v *view) write(frame func() error) error {
	if err := frame(); err != nil {
		return err
	}
	return v.flush.Flush()
}

// next makes the frame that brings the node up to date; nil when it is no
// member any more.
func (v *view) next() (*control.MapResponse, time.Duration) {
	n := v.net
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[v.id]
	if m == nil {
		return nil, 0
	}
	now := time.Now()
	resp := &control.MapResponse{ControlTime: now.UTC()}
	if !v.first {
		v.begin(resp)
	}
	if v.self != m.version {
		v.self = m.version
		resp.Node = m.node(n.cfg.Domain, true, now)
	}
	v.setFilter(resp, m)
	v.setRelays(resp)
	v.setPeers(resp, m, now)
	v.first = true
	return resp, n.delay
}

// begin adds what is sent once.
func (v *view) begin(resp *control.MapResponse) {
	domain := v.net.cfg.Domain
	v.peers = make(map[netmap.NodeID]uint64)
	v.users = make(map[netmap.UserID]bool)
	resp.Domain = domain
	resp.CollectServices = control.False
	resp.DNSConfig = &netmap.DNSConfig{
		Proxied: true, Domains: []string{domain}, Routes: map[string][]netmap.Resolver{domain: {}},
	}
	resp.Health = []string{}
}

func (v *view) setRelays(resp *control.MapResponse) {
	dm := v.net.derpMap()
	text, err := json.Marshal(dm)
	if err == nil && string(text) != v.derp {
		v.derp, resp.DERPMap = string(text), dm
	}
}

// setFilter adds the packet filter if it has changed.
func (v *view) setFilter(resp *control.MapResponse, m *member) {
	rules := v.net.policy.filterFor(m, v.net)
	text, err := json.Marshal(rules)
	if err != nil || v.first && string(text) == v.filter {
		return
	}
	v.filter = string(text)
	if v.net.cfg.Headscale {
		resp.PacketFilters = map[string][]netmap.FilterRule{"base": rules}
		return
	}
	resp.PacketFilter = rules
}

// setPeers adds peers that are new, changed or gone, and their owners.
func (v *view) setPeers(resp *control.MapResponse, m *member, now time.Time) {
	n := v.net
	seen := make(map[netmap.NodeID]bool)
	var changed []*control.Node
	visible := n.policy.visibleTo(m, n)
	for _, id := range slices.Sorted(maps.Keys(visible)) {
		p := visible[id]
		seen[id] = true
		v.addUser(resp, p.User)
		if version, known := v.peers[id]; !known || version != p.version {
			v.peers[id] = p.version
			changed = append(changed, p.node(n.cfg.Domain, false, now))
		}
	}
	v.addUser(resp, m.User)
	for id := range v.peers {
		if !seen[id] {
			delete(v.peers, id)
			resp.PeersRemoved = append(resp.PeersRemoved, id)
		}
	}
	slices.Sort(resp.PeersRemoved)
	if v.first {
		resp.PeersChanged = changed
	} else {
		resp.Peers = changed
	}
}

func (v *view) addUser(resp *control.MapResponse, id netmap.UserID) {
	if v.users[id] || id == 0 {
		return
	}
	v.users[id] = true
	name := v.net.users[id-1]
	resp.UserProfiles = append(resp.UserProfiles, netmap.UserProfile{ID: id, LoginName: v.net.loginName(name), DisplayName: name})
}
