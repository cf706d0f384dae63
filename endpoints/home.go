package endpoints

import (
	"slices"

	"github.com/seed94491740/tsnode/netmap"
)

// chooseHome returns the home region after a report that prefers one, 0 for
// none of it. now is the home so far; mayMove says whether peers would learn of
// a move (NC-44, NC-45). seed picks among regions when nothing was measured.
func chooseHome(dm *netmap.DERPMap, preferred, now int, mayMove bool, seed uint64) int {
	known := homeable(dm)
	stays := slices.Contains(known, now)
	switch {
	case len(known) == 0:
		return 0
	case stays && (preferred == 0 || !mayMove):
		return now
	case slices.Contains(known, preferred):
		return preferred
	}
	return known[seed%uint64(len(known))]
}

// onlyHome returns the region that can be home if it is the only one, else 0.
func onlyHome(dm *netmap.DERPMap) int {
	if known := homeable(dm); len(known) == 1 {
		return known[0]
	}
	return 0
}

// homeable returns the regions that may be home, in order.
func homeable(dm *netmap.DERPMap) (ids []int) {
	if dm == nil {
		return nil
	}
	for id, r := range dm.Regions {
		if r != nil && !r.NoMeasureNoHome && slices.ContainsFunc(r.Nodes, func(n *netmap.DERPNode) bool { return n != nil && !n.STUNOnly }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
