package endpoints

import (
	"net/netip"
	"slices"
	"time"
)

// Bounds of what is remembered (PATH-23, row 5).
const (
	recentFor   = 5*time.Minute + 10*time.Second
	recentPerIP = 6
)

// recent remembers the endpoints that others have told us of: a mapping that one
// round did not show may still be there.
type recent struct {
	seen []seenAt
}

type seenAt struct {
	Endpoint
	at time.Time
}

// note remembers what a round has found.
func (r *recent) note(found []Endpoint, now time.Time) {
	for _, e := range found {
		r.forget(e.Addr)
		r.seen = append(r.seen, seenAt{e, now}) // oldest first
	}
	r.seen = slices.DeleteFunc(r.seen, func(s seenAt) bool { return now.Sub(s.at) > recentFor })
	r.bound()
}

// forget takes an address out.
func (r *recent) forget(a netip.AddrPort) {
	r.seen = slices.DeleteFunc(r.seen, func(s seenAt) bool { return s.Addr == a })
}

// bound drops the oldest of an IP address that has too many.
func (r *recent) bound() {
	n := make(map[netip.Addr]int)
	for i := len(r.seen) - 1; i >= 0; i-- {
		ip := r.seen[i].Addr.Addr()
		if n[ip]++; n[ip] > recentPerIP {
			r.seen = slices.Delete(r.seen, i, i+1)
		}
	}
}

// list returns what is remembered, the latest first.
func (r *recent) list() (all []Endpoint) {
	for _, s := range slices.Backward(r.seen) {
		all = append(all, s.Endpoint)
	}
	return all
}
