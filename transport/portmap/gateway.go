package portmap

import (
	"net/netip"

	"github.com/seed94491740/tsnode/host"
)

// findRoute returns the way to a home router: a private IPv4 gateway and this
// host's own address towards it. It returns the zero route if there is none,
// or if the host does not tell (PATH-96).
func (c *Client) findRoute() route {
	def, err := c.network.DefaultRoute()
	if err != nil {
		return route{}
	}
	gateway := def.Gateway.Unmap()
	if !gateway.Is4() || !gateway.IsPrivate() {
		return route{}
	}
	own := def.Source.Unmap()
	if !own.IsValid() {
		all, err := c.network.Interfaces()
		if err != nil {
			return route{}
		}
		own = ownAddress(all, def.Interface, gateway)
	}
	if !own.Is4() {
		return route{}
	}
	return route{gateway, own}
}

// ownAddress returns the IPv4 address of an interface, preferably that of the
// gateway's network.
func ownAddress(all []host.Interface, name string, gateway netip.Addr) (own netip.Addr) {
	for _, i := range all {
		if i.Name != name {
			continue
		}
		for _, p := range i.Addrs {
			switch {
			case !p.Addr().Is4():
			case p.Contains(gateway):
				return p.Addr()
			case !own.IsValid():
				own = p.Addr()
			}
		}
	}
	return own
}
