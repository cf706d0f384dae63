package derp

import (
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/key"
)

// maxRoutes bounds the learned routes: anyone who knows our key can send to us
// through a relay. 16384 routes are about 1 MB.
const maxRoutes = 16 << 10

// A route says on which connection a peer was last heard (DERP-142).
type route struct {
	region     uint16
	generation uint32 // of the region's connection; another one voids the route
}

// routes are the learned routes of all regions. Readers of connections learn,
// Send looks up.
type routes struct {
	// changed counts routes that were replaced or removed, so that readers know
	// when what they remember may be wrong.
	changed atomic.Uint32
	evicted atomic.Uint64

	mu  sync.RWMutex
	via map[key.NodePublic]route
}

func (r *routes) lookup(peer key.NodePublic) (route, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	rt, ok := r.via[peer]
	return rt, ok
}

// set stores a route, evicting any other when there are too many.
func (r *routes) set(peer key.NodePublic, rt route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.via == nil {
		r.via = make(map[key.NodePublic]route)
	}
	old, had := r.via[peer]
	if had && old == rt {
		return
	}
	if !had && len(r.via) >= maxRoutes {
		for victim := range r.via { // random order
			delete(r.via, victim)
			r.evicted.Add(1)
			break
		}
		had = true
	}
	r.via[peer] = rt
	if had {
		r.changed.Add(1)
	}
}

// forget removes the peer's route if it is rt (DERP-143).
func (r *routes) forget(peer key.NodePublic, rt route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.via[peer] == rt {
		delete(r.via, peer)
		r.changed.Add(1)
	}
}

// forgetConn removes all routes of one connection.
func (r *routes) forgetConn(rt route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for peer, have := range r.via {
		if have == rt {
			delete(r.via, peer)
		}
	}
	r.changed.Add(1)
}

// A learner is one connection's memory of the routes it has set, so that a
// packet costs no lock. It is used by the connection's reader alone.
type learner struct {
	routes *routes
	here   route
	seen   uint32 // routes.changed when known was last right
	last   key.NodePublic
	known  map[key.NodePublic]struct{} // nil before the first
}

// heard notes that peer was heard on this connection.
func (l *learner) heard(peer key.NodePublic) {
	now := l.routes.changed.Load()
	if l.known != nil && now == l.seen {
		if peer == l.last {
			return
		}
		if _, ok := l.known[peer]; ok {
			l.last = peer
			return
		}
	} else {
		if l.known == nil {
			l.known = make(map[key.NodePublic]struct{})
		}
		clear(l.known)
		l.seen = now
	}
	l.routes.set(peer, l.here)
	if len(l.known) >= maxRoutes {
		clear(l.known)
	}
	l.known[peer] = struct{}{}
	l.last = peer
}
