package devnet

import (
	"net/netip"
	"slices"
)

// approveRoutes approves what the policy's autoApprovers section does.
func (t *tailnet) approveRoutes() {
	for _, m := range t.members {
		if m.Hostinfo == nil {
			continue
		}
		n := t.policyNode(m)
		for _, r := range m.Hostinfo.RoutableIPs {
			if r.IsValid() && !slices.Contains(m.Routes, r.Masked()) && t.policy.MayRoute(&n, r.Masked()) {
				m.Routes = append(slices.Clone(m.Routes), r.Masked())
				t.unsaved = true
			}
		}
	}
}

// choosePrimaries decides which of several routers of one network carries it:
// the first of those online, else the first. Exit nodes all do. A member whose
// part in it changes is told about anew.
func (t *tailnet) choosePrimaries() {
	all := t.sorted()
	carrier := make(map[netip.Prefix]*member)
	for _, m := range all {
		for _, r := range m.offered() {
			if c := carrier[r]; c == nil || !c.live.Online && m.live.Online {
				carrier[r] = m
			}
		}
	}
	for _, m := range all {
		var primary []netip.Prefix
		for _, r := range m.offered() {
			if r.Bits() == 0 || carrier[r] == m {
				primary = append(primary, r)
			}
		}
		if !slices.Equal(primary, m.primary) {
			m.primary = primary
			t.touch(m)
		}
	}
}

// offered returns the approved routes that the node still offers.
func (m *member) offered() (routes []netip.Prefix) {
	if m.Hostinfo == nil || !m.Approved {
		return nil
	}
	for _, r := range m.Hostinfo.RoutableIPs {
		if r.IsValid() && slices.Contains(m.Routes, r.Masked()) {
			routes = append(routes, r.Masked())
		}
	}
	slices.SortFunc(routes, netip.Prefix.Compare)
	return slices.Compact(routes)
}
