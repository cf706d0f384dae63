package carry

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// A Limit bounds how many flows there are at once, in all and from each source. A
// source may have no more than are left for others: alone it gets half, two get a
// third each. So one that floods leaves room to all others. The programs of this
// machine cannot be told apart by where they come from: they may have all.
type Limit struct {
	max, each int
	within    *Limit
	refused   atomic.Uint64

	mu    sync.Mutex
	total int
	by    map[netip.Addr]int
}

// NewLimit returns a limit of max flows, of which a source may have each; 0: as
// many as are left for others. It counts in the limit within as well, unless that
// is nil.
func NewLimit(max, each int, within *Limit) *Limit {
	return &Limit{max: max, each: each, within: within, by: make(map[netip.Addr]int)}
}

// Take reports whether one flow more of source may begin, and counts it if so. A
// source that has no address is the zero Addr.
func (l *Limit) Take(source netip.Addr) bool { return l.takeN(source, 1) }

// Give takes back what Take has counted.
func (l *Limit) Give(source netip.Addr) { l.giveN(source, 1) }

// takeN is Take of a flow that counts as n.
func (l *Limit) takeN(source netip.Addr, n int) bool {
	if !l.count(sourceOf(source), n) {
		l.refused.Add(1)
		return false
	}
	if l.within != nil && !l.within.takeN(source, n) {
		l.count(sourceOf(source), -n)
		l.refused.Add(1)
		return false
	}
	return true
}

func (l *Limit) giveN(source netip.Addr, n int) {
	l.count(sourceOf(source), -n)
	if l.within != nil {
		l.within.giveN(source, n)
	}
}

// count adds n to what a source has, if that may be.
func (l *Limit) count(source netip.Addr, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if has := l.by[source] + n; n > 0 && (l.total+n > l.max || has > l.share(source)) {
		return false
	}
	l.total += n
	if l.by[source] += n; l.by[source] == 0 {
		delete(l.by, source)
	}
	return true
}

// share is how much a source may have; l.mu is held.
func (l *Limit) share(source netip.Addr) int {
	switch {
	case l.each > 0:
		return l.each
	case !source.IsValid() || source.IsLoopback():
		return l.max
	}
	return l.max - l.total
}

// tailnet6 has the addresses of tailnets' nodes: each has one.
var tailnet6 = netip.MustParsePrefix("fd7a:115c:a1e0::/48")

// hostBits are those that a host on other networks of IPv6 gives itself: it may have
// all of them (RFC 4291 section 2.5.1).
const hostBits = 64

// sourceOf returns what stands for all addresses that a source may have.
func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() || a.IsLoopback() || tailnet6.Contains(a) {
		return a
	}
	network, _ := a.Prefix(128 - hostBits) // of an IPv6 address it is one
	return network.Addr()
}

// Open returns how many flows there are.
func (l *Limit) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Refused returns how many flows could not begin.
func (l *Limit) Refused() uint64 { return l.refused.Load() }
