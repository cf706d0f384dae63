package netmap

import (
	"encoding/json"
	"net/netip"
	"slices"
)

// attrServiceHost is the attribute of nodes that host services; each value maps
// names to addresses (control.md section 9.4).
const attrServiceHost = "service-host"

// ServiceAddrs returns the virtual addresses of a service that this node hosts, by
// a name such as svc:web: all that the server has sent, in order, each once. It is
// empty for other services.
func (m *Netmap) ServiceAddrs(name string) (addrs []netip.Addr) {
	if m.Self == nil {
		return nil
	}
	for _, raw := range m.Self.CapMap[attrServiceHost] {
		var hosted map[string][]netip.Addr
		if json.Unmarshal(raw, &hosted) != nil {
			continue // no good server sends it, and the others count
		}
		for _, a := range hosted[name] {
			if a = a.Unmap(); a.IsValid() && !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}
