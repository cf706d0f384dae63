package control

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// A mapState is one map session: what the frames so far add up to (control.md
// section 8.4). It does no I/O; its owner passes the time.
type mapState struct {
	current *netmap.Netmap // nil before the first frame; never modified
	before  *netmap.Netmap // what the session before has left in force; until the first frame
	filters map[string][]netmap.FilterRule

	// locked stays set once tailnet lock was seen on: a server that turns it off
	// cannot be told from one that has been taken over, without checking the
	// disablement secret (CTL-41).
	locked bool
	lock   *TKAInfo // what the server has said of it, on this map stream; nil: off

	handle string // of a session that can be resumed, and where it stands
	seq    int64
}

// errNoNode says that a session began without the one thing it must have
// (CTL-33).
var errNoNode = errors.New("map response: first frame of the session has no Node")

// apply takes a frame that is no keep-alive. On an error the session is over
// and the netmap in force stays. Order is that of control.md section 8.5.
func (s *mapState) apply(u *update, now time.Time) error {
	old := s.current
	if old == nil {
		if u.self == nil {
			return errNoNode
		}
		old = new(netmap.Netmap)
	}
	if u.self != nil && old.Self != nil && u.self.ID != old.Self.ID {
		return fmt.Errorf("map response: this node was %d and is %d", old.Self.ID, u.self.ID)
	}
	m := *old
	if u.self != nil {
		m.Self = u.self
	}
	edit := peerEdit{peers: old.Peers, old: old.Peers, inForce: cmp.Or(s.current, s.before)}
	edit.apply(u, now)
	m.Peers = edit.sane(m.Self, old.Self != m.Self)
	s.applyRest(&m, u, now)
	s.current, s.before = &m, nil
	s.expire(now)
	if u.MapSessionHandle != "" {
		s.handle = u.MapSessionHandle
	}
	s.seq = cmp.Or(u.Seq, s.seq)
	return nil
}

// applyTime takes the clock of a keep-alive, in which nothing else counts
// (control.md section 8.3), and reports whether that changed the netmap.
func (s *mapState) applyTime(server, now time.Time) bool {
	if s.current == nil || server.IsZero() || s.current.ClockOffset == clockOffset(server, now) {
		return false
	}
	m := *s.current
	m.ClockOffset = clockOffset(server, now)
	s.current = &m
	s.expire(now)
	return true
}

// applyRest takes all but nodes: nil leaves a field as it was (CTL-39).
func (s *mapState) applyRest(m *netmap.Netmap, u *update, now time.Time) {
	m.Users = mergeUsers(m.Users, u.UserProfiles)
	m.DERP = mergeDERP(m.DERP, u.DERPMap)
	if s.mergeFilters(u) {
		m.Filter = s.joinFilters()
	}
	if u.DNSConfig != nil {
		m.DNS = u.DNSConfig
	}
	m.Domain = cmp.Or(u.Domain, m.Domain)
	if u.Health != nil {
		m.Health = u.Health
	}
	m.Messages = mergeMessages(m.Messages, u.DisplayMessages)
	if u.TKAInfo != nil {
		s.lock = u.TKAInfo
		s.locked = s.locked || !s.lock.Disabled
	}
	m.LockEnabled = s.locked
	if !u.ControlTime.IsZero() {
		m.ClockOffset = clockOffset(u.ControlTime, now)
	}
}

// lockGoal returns what the server says of tailnet lock.
func (s *mapState) lockGoal() lockGoal {
	if s.lock == nil || s.lock.Disabled {
		return lockGoal{}
	}
	return lockGoal{on: true, head: s.lock.Head}
}

// unlock turns tailnet lock off, which has been proven.
func (s *mapState) unlock() {
	s.locked = false
	if s.current != nil {
		m := *s.current
		m.LockEnabled = false
		s.current = &m
	}
}

// clockTolerance is the difference of clocks that is taken for none (control.md
// section 9.3).
const clockTolerance = time.Minute

func clockOffset(server, now time.Time) time.Duration {
	d := server.Sub(now)
	if d.Abs() <= clockTolerance {
		return 0
	}
	return d
}

// mergeUsers adds profiles by ID.
func mergeUsers(old map[netmap.UserID]netmap.UserProfile, add []netmap.UserProfile) map[netmap.UserID]netmap.UserProfile {
	if len(add) == 0 {
		return old
	}
	all := maps.Clone(old)
	if all == nil {
		all = make(map[netmap.UserID]netmap.UserProfile, len(add))
	}
	for _, u := range add {
		all[u.ID] = u
	}
	return all
}

// mergeDERP follows control.md section 13.2: nil parts keep what was (CTL-38).
func mergeDERP(old, now *netmap.DERPMap) *netmap.DERPMap {
	if now == nil {
		return old
	}
	m := *now
	if old != nil && m.Regions == nil {
		m.Regions, m.OmitDefaultRegions = old.Regions, old.OmitDefaultRegions
	}
	switch {
	case old == nil || old.HomeParams == nil:
	case m.HomeParams == nil, m.HomeParams.RegionScore == nil:
		m.HomeParams = old.HomeParams
	}
	maps.DeleteFunc(m.Regions, func(_ int, r *netmap.Region) bool { return r == nil })
	for _, r := range m.Regions {
		r.Nodes = slices.DeleteFunc(r.Nodes, func(n *netmap.DERPNode) bool { return n == nil })
	}
	return &m
}

// clearAll is the name that, with null, clears a named set before the rest of a
// patch applies.
const clearAll = "*"

// mergeFilters follows control.md section 8.7 and reports whether anything was
// said about filters (CTL-37).
func (s *mapState) mergeFilters(u *update) bool {
	if s.filters == nil {
		s.filters = make(map[string][]netmap.FilterRule)
	}
	if u.PacketFilter != nil {
		s.filters["base"] = u.PacketFilter
	}
	if rules, ok := u.PacketFilters[clearAll]; ok && rules == nil {
		clear(s.filters)
	}
	for name, rules := range u.PacketFilters {
		switch {
		case rules == nil:
			delete(s.filters, name)
		case name != clearAll:
			s.filters[name] = rules
		}
	}
	return u.PacketFilter != nil || u.PacketFilters != nil
}

func (s *mapState) joinFilters() []netmap.FilterRule {
	var all []netmap.FilterRule
	for _, name := range slices.Sorted(maps.Keys(s.filters)) {
		all = append(all, s.filters[name]...)
	}
	return all
}

// mergeMessages patches the messages: null deletes (CTL-40).
func mergeMessages(old map[string]netmap.DisplayMessage, patch map[string]*netmap.DisplayMessage) map[string]netmap.DisplayMessage {
	if len(patch) == 0 {
		return old
	}
	all := maps.Clone(old)
	if msg, ok := patch[clearAll]; ok && msg == nil || all == nil {
		all = make(map[string]netmap.DisplayMessage, len(patch))
	}
	for id, msg := range patch {
		switch {
		case msg == nil:
			delete(all, id)
		case id != clearAll:
			all[id] = *msg
		}
	}
	return all
}

// serviceAddrs are the tailnet's own service addresses, which no peer may
// attract (control.md section 15, rule 5).
var serviceAddrs = []netip.Addr{netip.MustParseAddr("100.100.100.100"), netip.MustParseAddr("fd7a:115c:a1e0::53")}
