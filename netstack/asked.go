package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// askedLimit bounds how many peers of a socket are remembered to have asked
// another address than our first.
const askedLimit = 1024

// asked remembers which of our addresses the peers of a socket have asked, for
// those that did not ask the one that a reply would leave from anyway.
type asked struct {
	size atomic.Int32 // of the map: most sockets never lock
	mu   sync.Mutex
	to   map[netip.AddrPort]netip.Addr
}

func (a *asked) note(from netip.AddrPort, to, first netip.Addr) {
	if to == first && a.size.Load() == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if to == first {
		delete(a.to, from)
	} else {
		a.remember(from, to)
	}
	a.size.Store(int32(len(a.to)))
}

func (a *asked) remember(from netip.AddrPort, to netip.Addr) {
	if a.to == nil {
		a.to = make(map[netip.AddrPort]netip.Addr)
	}
	if _, known := a.to[from]; !known && len(a.to) >= askedLimit {
		for other := range a.to { // any one
			delete(a.to, other)
			break
		}
	}
	a.to[from] = to
}

// at returns the address that from has asked, not valid for our first.
func (a *asked) at(from netip.AddrPort) netip.Addr {
	if a.size.Load() == 0 {
		return netip.Addr{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.to[from]
}
