package packetfilter

import (
	"encoding/json"
	"net/netip"
	"sort"

	"github.com/seed94491740/tsnode/netmap"
)

// Grants are the capabilities that rules grant, found by source. A source that
// is named by a node capability is granted nothing (SVC-14).
type grants struct {
	list []netmap.CapGrant // in the order of the rules
	by4  index[v4]         // to list
	by6  index[v6]

	spans4 []numbered[v4] // until finish
	spans6 []numbered[v6]
}

// add adds the grants of one rule.
func (gs *grants) add(from *set, to []netmap.CapGrant) {
	for _, g := range to {
		gs.spans4 = appendNumbered(gs.spans4, from.v4, len(gs.list))
		gs.spans6 = appendNumbered(gs.spans6, from.v6, len(gs.list))
		gs.list = append(gs.list, g)
	}
}

// finish makes what is looked up in, after the last add.
func (gs *grants) finish() {
	gs.by4, gs.by6 = newIndex(gs.spans4), newIndex(gs.spans6)
	gs.spans4, gs.spans6 = nil, nil
}

// of returns the grants to src, in the order of the rules.
func (gs *grants) of(src netip.Addr) []int32 {
	var numbers []int32
	switch {
	case src.Is4():
		numbers = numbersAt(&gs.by4, to4(src))
	case src.Is6():
		numbers = numbersAt(&gs.by6, to6(src))
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers
}

func numbersAt[T point[T]](x *index[T], p T) (numbers []int32) {
	c := x.containing(p)
	for i, ok := c.next(); ok; i, ok = c.next() {
		numbers = append(numbers, i)
	}
	return numbers
}

// capIngress is the one capability that a peer exempt from tailnet lock can
// have: to pass on connections from the Internet (SVC-16, SVC-108).
const capIngress = "https://tailscale.com/cap/ingress"

// Caps returns the capabilities that src has towards dst, by name: the union
// over all grants whose sources contain src and whose destinations contain dst,
// values in the order of the rules (SVC-118). It is nil when there are none. The
// values must not be changed.
func (r *Rules) Caps(src, dst netip.Addr) netmap.CapMap {
	var caps netmap.CapMap
	exempt := r.exempt.contains(src)
	for _, i := range r.grants.of(src) {
		eachCap(&r.grants.list[i], dst, func(name string, values []json.RawMessage) {
			if name == "" || exempt && name != capIngress {
				return
			}
			if caps == nil {
				caps = make(netmap.CapMap)
			}
			old := caps[name]
			caps[name] = append(old[:len(old):len(old)], values...)
		})
	}
	return caps
}

// eachCap calls f for every capability granted towards dst (SVC-14).
func eachCap(grant *netmap.CapGrant, dst netip.Addr, f func(name string, values []json.RawMessage)) {
	for _, p := range grant.Dsts {
		if !p.Contains(dst) {
			continue
		}
		for _, name := range grant.Caps {
			f(name, nil)
		}
		for name, values := range grant.CapMap {
			f(name, values)
		}
	}
}
