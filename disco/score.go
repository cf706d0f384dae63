package disco

import (
	"net/netip"
	"time"
)

// defaultMTU is the wire MTU in bytes of a path that was not probed (PATH-45).
const defaultMTU = 1360

// A choice is a direct address with what its last pong told; the zero choice is
// none.
type choice struct {
	addr    netip.AddrPort
	latency time.Duration
	mtu     int // wire MTU, bytes
}

func (c choice) isZero() bool { return !c.addr.IsValid() }

// better reports whether a replaces b (PATH-44). Both are direct: paths through
// peer relays are not used.
func better(a, b choice) bool {
	switch {
	case a.isZero():
		return false
	case b.isZero():
		return true
	case a.addr == b.addr:
		return a.mtu > b.mtu
	}
	pa, pb := points(a, b), points(b, a)
	if pa <= 1 && pb == 0 {
		return false
	}
	return pa > pb
}

// points returns what speaks for a, the lower latency in percent of the higher
// and the kind of address.
func points(a, b choice) int {
	n := 0
	if a.latency < b.latency {
		n = 100 - int(100*a.latency/b.latency)
	}
	ip := a.addr.Addr()
	switch {
	case ip.IsLoopback():
		n += 50
	case ip.IsLinkLocalUnicast():
		n += 30
	case ip.IsPrivate():
		n += 20
	}
	if ip.Is6() {
		n += 10
	}
	return n
}
