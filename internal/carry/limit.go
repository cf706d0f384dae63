package carry

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// A Limit bounds how many flows there are at once, in all and from each source. A
// source may have no more than are left for others: alone it gets half, two get a
// third each. So one that floods leaves room to all others.
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
func (l *Limit) Take(source netip.Addr) bool {
	source = source.Unmap()
	if !l.take(source) {
		l.refused.Add(1)
		return false
	}
	if l.within != nil && !l.within.Take(source) {
		l.give(source)
		l.refused.Add(1)
		return false
	}
	return true
}

func (l *Limit) take(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := l.by[source]
	if l.each > 0 && (has >= l.each || l.total >= l.max) || l.each == 0 && has >= l.max-l.total {
		return false
	}
	l.total++
	l.by[source]++
	return true
}

// Give takes back what Take has counted.
func (l *Limit) Give(source netip.Addr) {
	source = source.Unmap()
	l.give(source)
	if l.within != nil {
		l.within.Give(source)
	}
}

func (l *Limit) give(source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.by[source]--; l.by[source] == 0 {
		delete(l.by, source)
	}
}

// Open returns how many flows there are.
func (l *Limit) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Refused returns how many flows could not begin.
func (l *Limit) Refused() uint64 { return l.refused.Load() }
