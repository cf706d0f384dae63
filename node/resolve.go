package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// resolve returns the addresses of host that fit family ("", "4" or "6"), best
// first: an IP literal, a name of the tailnet, or a name of the host's resolver
// (SVC-79).
func (n *Node) resolve(ctx context.Context, nm *netmap.Netmap, host, family string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return fitting(host, []netip.Addr{a.Unmap()}, family)
	}
	if addrs := lookupNetmap(nm, host); addrs != nil {
		return fitting(host, addrs, family)
	}
	addrs, err := n.run.network.LookupNetIP(ctx, "ip"+family, host)
	if err != nil {
		var dnsErr *net.DNSError
		if errors.As(err, &dnsErr) && !dnsErr.IsNotFound && ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%q: %w: no such node of the tailnet, and the host's resolver says: %v", host, ErrNameNotFound, err)
	}
	return fitting(host, addrs, family)
}

// fitting keeps the addresses of the family.
func fitting(host string, addrs []netip.Addr, family string) ([]netip.Addr, error) {
	fit := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return family == "4" && !a.Is4() || family == "6" && !a.Is6()
	})
	if len(fit) == 0 {
		return nil, fmt.Errorf("%q: %w: no IPv%s address, but %v", host, ErrNameNotFound, family, addrs)
	}
	return fit, nil
}

// lookupNetmap resolves a name that the netmap knows: extra records, then nodes
// by full and by bare name; IPv4 first. It returns nil for others.
func lookupNetmap(nm *netmap.Netmap, name string) []netip.Addr {
	name = strings.TrimSuffix(name, ".")
	if addrs := extraRecords(nm, name); addrs != nil {
		return addrs
	}
	p, ok := nm.PeerByName(name)
	if !ok {
		return nil
	}
	var addrs []netip.Addr
	for _, a := range p.Addresses {
		addrs = append(addrs, a.Addr())
	}
	return v4First(addrs)
}

// extraRecords returns the addresses that the tailnet's DNS configuration gives
// a name.
func extraRecords(nm *netmap.Netmap, name string) (addrs []netip.Addr) {
	if nm.DNS == nil {
		return nil
	}
	for _, r := range nm.DNS.ExtraRecords {
		if !strings.EqualFold(strings.TrimSuffix(r.Name, "."), name) {
			continue
		}
		if a, err := netip.ParseAddr(r.Value); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	return v4First(addrs)
}

func v4First(addrs []netip.Addr) []netip.Addr {
	sort.SliceStable(addrs, func(i, j int) bool { return addrs[i].Is4() && !addrs[j].Is4() })
	return addrs
}
