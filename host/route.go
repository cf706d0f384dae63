package host

import "net/netip"

// A Route is the way out of the host that packets to the internet take.
type Route struct {
	Interface string
	Gateway   netip.Addr // next hop; not valid on a point-to-point link
	Source    netip.Addr // this host's address on that interface; may be not valid
}

// DefaultRoute asks the operating system. Where that is neither Linux, macOS,
// a BSD nor Windows, or a sandbox hides the routes, the error is
// errors.ErrUnsupported: then no port mapping is asked of a gateway (PATH-96),
// and a default route that moves between interfaces which keep their addresses
// goes unnoticed.
func (OS) DefaultRoute() (Route, error) {
	r, err := defaultRoute()
	if err != nil {
		return Route{}, err
	}
	all, err := OS{}.Interfaces()
	if err != nil {
		return Route{}, err
	}
	for _, i := range all {
		if i.Name == r.Interface {
			r.Source = sourceFor(i.Addrs, r)
		}
	}
	return r, nil
}

// sourceFor returns the address of own that a gateway knows this host by: the
// one in the gateway's subnet (PATH-96), or the first routable one of the
// gateway's family. The gateway of IPv6 is link-local; packets beyond it need a
// routable source.
func sourceFor(own []netip.Prefix, r Route) netip.Addr {
	var first netip.Addr
	for _, p := range own {
		a := p.Addr()
		if !routable(a) || r.Gateway.IsValid() && a.Is4() != r.Gateway.Is4() {
			continue
		}
		if p.Contains(r.Gateway) {
			return a
		}
		if !first.IsValid() {
			first = a
		}
	}
	return first
}
