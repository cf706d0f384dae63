package netmap

import "slices"

// An Exit is what a control server says of a peer as a way to the Internet.
type Exit struct {
	DNS                 []Resolver // to ask while it is the exit node; of a WireGuardOnly peer (SVC-69)
	Located             bool       // the server knows where it is
	Latitude, Longitude float64    // degrees; only if Located
	Priority            int        // of peers that are alike, the one with the highest is chosen (SVC-41)
}

// Same reports whether two peers offer the same; either may be nil.
func (e *Exit) Same(o *Exit) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Located == o.Located && e.Latitude == o.Latitude && e.Longitude == o.Longitude && e.Priority == o.Priority &&
		slices.EqualFunc(e.DNS, o.DNS, sameResolver)
}

func sameResolver(a, b Resolver) bool {
	return a.Addr == b.Addr && a.UseWithExitNode == b.UseWithExitNode && slices.Equal(a.BootstrapResolution, b.BootstrapResolution)
}

// Priority is how much the server prefers p among peers that are alike; the
// higher, the more (SVC-41).
func (p *Peer) Priority() int {
	if p.Exit == nil {
		return 0
	}
	return p.Exit.Priority
}
