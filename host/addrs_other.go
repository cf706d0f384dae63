//go:build !linux

package host

import (
	"net"
	"net/netip"
)

// addresses returns the addresses of all interfaces by the interfaces' numbers.
func addresses(of []net.Interface) (map[int][]netip.Prefix, error) {
	all := make(map[int][]netip.Prefix)
	for _, i := range of {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it vanished meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				all[i.Index] = append(all[i.Index], netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
			}
		}
	}
	return all, nil
}
