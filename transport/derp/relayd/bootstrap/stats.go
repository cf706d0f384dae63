package bootstrap

import (
	"strings"
	"sync"
	"sync/atomic"
)

const (
	maxName    = 253 // characters of a host name; RFC 1035 section 2.3.4
	maxQueried = 500 // names remembered for the count; DERP-104
)

// counters are what has been asked.
type counters struct {
	requests                 atomic.Uint64
	publishedHits            atomic.Uint64
	publishedMisses          atomic.Uint64
	unpublishedHits          atomic.Uint64
	unpublishedMisses        atomic.Uint64
	unpublishedPercentMisses atomic.Uint64
	queried                  nameSet
}

// Stats are what has been asked since the start, by the counter names of
// DERP-104 behind "counter_bootstrap_dns_". Each question for a name counts as
// one hit or miss.
type Stats struct {
	Requests                 uint64 // requests
	PublishedHits            uint64 // published_hits: asked for a published name
	PublishedMisses          uint64 // published_misses: for one that does not resolve now
	UnpublishedHits          uint64 // unpublished_hits: told an unpublished name
	UnpublishedMisses        uint64 // unpublished_misses: for a name that is not known, or does not resolve now
	UnpublishedPercentMisses uint64 // unpublished_percent_misses: not told, being outside the rollout
	QueriedDomains           int    // queried_domains: different names asked for, up to 500, then anew
}

// Stats returns the counters.
func (s *Service) Stats() Stats {
	return Stats{
		Requests:                 s.counters.requests.Load(),
		PublishedHits:            s.counters.publishedHits.Load(),
		PublishedMisses:          s.counters.publishedMisses.Load(),
		UnpublishedHits:          s.counters.unpublishedHits.Load(),
		UnpublishedMisses:        s.counters.unpublishedMisses.Load(),
		UnpublishedPercentMisses: s.counters.unpublishedPercentMisses.Load(),
		QueriedDomains:           s.counters.queried.len(),
	}
}

// A nameSet is the different names that were asked for. It begins anew when it
// is full; what cannot be a name is left out, as anyone can ask for anything.
type nameSet struct {
	mu    sync.Mutex
	names map[string]struct{}
}

// add notes a name that was asked for.
func (n *nameSet) add(name string) {
	if len(name) > maxName {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names == nil {
		n.names = make(map[string]struct{})
	}
	n.names[strings.Clone(name)] = struct{}{} // a part of the request would keep all of it
	if len(n.names) > maxQueried {
		clear(n.names)
	}
}

func (n *nameSet) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.names)
}
