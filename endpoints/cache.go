package endpoints

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"
	"time"
)

// Bounds of what is remembered (PATH-23 row 5).
const (
	rememberFor   = 5*time.Minute + 10*time.Second
	maxPerAddress = 6  // of one IP address; the oldest go
	maxAddresses  = 32 // IP addresses in all; the oldest go
)

// A memory is an endpoint that was found in an earlier discovery.
type memory struct {
	Endpoint
	seen time.Time
}

// A cache remembers endpoints: NATs answer at an address for a while after
// they have begun to use another.
type cache struct{ all []memory } // newest first

// put remembers what a discovery has found outside of this host.
func (c *cache) put(found []Endpoint, now time.Time) {
	for _, e := range found {
		c.all = slices.DeleteFunc(c.all, func(m memory) bool { return m.Addr == e.Addr })
		c.all = append(c.all, memory{e, now})
	}
	sort.Slice(c.all, func(i, j int) bool {
		a, b := c.all[i], c.all[j]
		return cmp.Or(b.seen.Compare(a.seen), a.Addr.Compare(b.Addr)) < 0
	})
	c.trim(now)
}

func (c *cache) trim(now time.Time) {
	count := make(map[netip.Addr]int)
	c.all = slices.DeleteFunc(c.all, func(m memory) bool {
		ip := m.Addr.Addr()
		if now.Sub(m.seen) >= rememberFor || count[ip] == maxPerAddress || count[ip] == 0 && len(count) == maxAddresses {
			return true
		}
		count[ip]++
		return false
	})
}

// forget empties the cache: in another network the old addresses lead nowhere.
func (c *cache) forget() { c.all = nil }
