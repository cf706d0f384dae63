package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"

	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/netmap"
)

// resolve returns the addresses of host that fit family ("", "4" or "6"), best
// first: an IP literal, a name of the tailnet, what the tailnet's DNS says of a
// name that is its to resolve, or what the host's resolver says (SVC-79).
func (n *Node) resolve(ctx context.Context, nm *netmap.Netmap, host, family string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return fitting(host, []netip.Addr{a.Unmap()}, family)
	}
	addrs, ours, err := n.run.names.Lookup(ctx, "ip"+family, host)
	switch {
	case errors.Is(err, dns.ErrNotFound):
		return nil, fmt.Errorf("%q: %w, as the tailnet's DNS says", host, ErrNameNotFound)
	case err != nil:
		return nil, fmt.Errorf("%q: %w", host, err)
	case ours:
		return fitting(host, addrs, family)
	}
	if p, ok := nm.PeerByName(host); ok { // the first label of a node of another tailnet
		return fitting(host, addressesOf(p), family)
	}
	if n.run.hostDNSBarred() {
		return nil, n.run.noExitNode()
	}
	addrs, err = n.run.network.LookupNetIP(ctx, "ip"+family, host)
	if err != nil {
		if dnsErr, ok := errors.AsType[*net.DNSError](err); ok && !dnsErr.IsNotFound && ctx.Err() != nil {
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

// addressesOf returns the addresses of a node, IPv4 first.
func addressesOf(p *netmap.Peer) (addrs []netip.Addr) {
	for _, a := range p.Addresses {
		addrs = append(addrs, a.Addr())
	}
	sort.SliceStable(addrs, func(i, j int) bool { return addrs[i].Is4() && !addrs[j].Is4() })
	return addrs
}
