package host

import "net/netip"

// A Route is the way out of the host that packets to the internet take.
type Route struct {
	Interface string
	Gateway   netip.Addr // next hop; not valid on a point-to-point link
	Source    netip.Addr // this host's address on that interface; may be not valid
}
