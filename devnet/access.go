package devnet

import (
	"maps"
	"reflect"

	"github.com/seed94491740/tsnode/devnet/internal/policy"
	"github.com/seed94491740/tsnode/netmap"
)

// An access is what the policy means for one member. It is immutable.
type access struct {
	filter  []netmap.FilterRule // what others may do with it; never nil
	version uint64              // of filter
	peers   []*member           // whom it may reach, or who may reach it; by ID
	attrs   netmap.CapMap       // by policy, and set by hand
}

// rights are the accesses of all members.
type rights struct {
	access map[netmap.NodeID]*access
	stale  bool   // to be compiled anew
	newest uint64 // version of a filter
}

// accessOf returns what the policy means for a member.
func (t *tailnet) accessOf(m *member) *access {
	if t.rights.stale {
		t.compile()
	}
	return t.rights.access[m.ID]
}

// compile works out the policy for all members; those that wait for approval may
// do nothing. A filter that comes out as it was keeps its version, so that nobody
// is told it anew.
func (t *tailnet) compile() {
	t.approveRoutes()
	t.choosePrimaries()
	var nodes []policy.Node
	for _, m := range t.sorted() {
		if m.Approved {
			nodes = append(nodes, t.policyNode(m))
		}
	}
	compiled, all := t.policy.Compile(nodes), make(map[netmap.NodeID]*access)
	for id, m := range t.members {
		a := &access{filter: []netmap.FilterRule{}, attrs: t.attributes(m)}
		if c := compiled[id]; c != nil {
			a.filter = c.Filter
			for _, peer := range c.Peers {
				a.peers = append(a.peers, t.members[peer])
			}
		}
		t.rights.number(t.rights.access[id], a)
		all[id] = a
	}
	t.rights.access, t.rights.stale = all, false
}

// number gives a the version of old if their filters are the same, else a new
// one.
func (r *rights) number(old, a *access) {
	if old != nil && reflect.DeepEqual(old.filter, a.filter) {
		a.version = old.version
		return
	}
	r.newest++
	a.version = r.newest
}

// policyNode is a member as the policy sees it.
func (t *tailnet) policyNode(m *member) policy.Node {
	return policy.Node{
		ID: m.ID, User: t.loginOf(m.User), Tags: m.Tags, Addresses: m.Addresses, Routes: m.offered(), Carries: m.primary,
	}
}

// attributes returns the attributes of a member: by policy, and set by hand.
func (t *tailnet) attributes(m *member) netmap.CapMap {
	n := t.policyNode(m)
	attrs := t.policy.Attributes(&n)
	if attrs == nil {
		return m.CapMap
	}
	maps.Copy(attrs, m.CapMap)
	return attrs
}
