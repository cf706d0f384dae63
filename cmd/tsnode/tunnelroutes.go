package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/vpn"
)

// serversTimeout bounds the look-up of the names of all servers.
const serversTimeout = 5 * time.Second

// Excluded is part of vpn.Node. Without marks the servers are named, too: rules can
// tell what the node sends to them by nothing but the addresses.
func (t *tunnelNode) Excluded(ctx context.Context, nm *netmap.Netmap) (networks []netip.Prefix) {
	p := t.Preferences()
	if p.ExitNode == "" {
		return nil
	}
	if p.ExitNodeAllowLANAccess {
		networks = ownNetworks()
	}
	if !host.MayMark() {
		for _, a := range t.servers.addrs(ctx, t.ControlURL, nm.DERP) {
			networks = append(networks, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return networks
}

// Check is part of vpn.Node.
func (t *tunnelNode) Check(s vpn.NetworkSettings) error {
	if host.MayMark() {
		return checkLoop(host.OS{Mark: host.TunnelMark}, s, fmt.Sprintf("have the front end leave packets with mark %#x/%#x out of its routes", host.TunnelMark, host.TunnelMask))
	}
	return checkLoop(host.OS{}, s, "run the tunnel with CAP_NET_ADMIN (Linux), or in another network namespace than the interface")
}

// Addresses that no machine has, in the Internet (RFC 5737, RFC 3849).
var (
	anywhere4 = netip.MustParseAddr("198.51.100.1")
	anywhere6 = netip.MustParseAddr("2001:db8::1")
)

// checkLoop fails when everything goes into an interface with the settings, and what
// the node sends with it: the source address that the system chooses for a socket
// tells. No packet is sent.
func checkLoop(network host.Network, s vpn.NetworkSettings, mend string) error {
	for to, f := range map[netip.Addr]*vpn.FamilySettings{anywhere4: s.IPv4, anywhere6: s.IPv6} {
		if f == nil || !slices.ContainsFunc(f.Included, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
			continue
		}
		c, err := network.Dial(context.Background(), "udp", netip.AddrPortFrom(to, 9).String())
		if err != nil {
			continue // there is no way out
		}
		from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		if slices.ContainsFunc(f.Addrs, func(p netip.Prefix) bool { return p.Addr() == from }) {
			return fmt.Errorf("with the exit node the node's own packets go into the tunnel, and so to itself: %s", mend)
		}
	}
	return nil
}

// servers knows the addresses of the servers that a node talks to. Those of a name
// stay as they were found first. Nobody shares it.
type servers struct {
	lookup func(ctx context.Context, network, name string) ([]netip.Addr, error) // nil: the machine's
	found  map[string][]netip.Addr                                               // of names
}

// addrs returns the addresses of the control server and of all relays, as far as
// they can be found.
func (s *servers) addrs(ctx context.Context, controlURL string, relays *netmap.DERPMap) (all []netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, serversTimeout)
	defer cancel()
	if u, err := url.Parse(controlURL); err == nil {
		all = s.of(ctx, u.Hostname())
	}
	if relays == nil {
		return all
	}
	for _, region := range relays.Regions {
		if region == nil {
			continue
		}
		for _, relay := range region.Nodes {
			all = append(all, s.ofRelay(ctx, relay)...)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// ofRelay are the addresses of a relay: those of the map, else those of its name.
func (s *servers) ofRelay(ctx context.Context, relay *netmap.DERPNode) (all []netip.Addr) {
	for _, text := range []string{relay.IPv4, relay.IPv6} {
		if a, err := netip.ParseAddr(text); err == nil { // "none" is none
			all = append(all, a.Unmap())
		}
	}
	if relay.IPv4 == "" || relay.IPv6 == "" {
		all = append(all, s.of(ctx, relay.HostName)...)
	}
	return all
}

// of are the addresses of a name, or an address itself.
func (s *servers) of(ctx context.Context, name string) []netip.Addr {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	if all, ok := s.found[name]; ok {
		return all
	}
	lookup := s.lookup
	if lookup == nil {
		lookup = host.OS{}.LookupNetIP
	}
	all, err := lookup(ctx, "ip", name)
	if err != nil {
		return nil // the next time, perhaps
	}
	if s.found == nil {
		s.found = make(map[string][]netip.Addr)
	}
	s.found[name] = all
	return all
}

// ownNetworks are the networks that this machine is in, without those of loopback
// and tailnets.
func ownNetworks() (networks []netip.Prefix) {
	all, err := host.OS{}.Interfaces()
	if err != nil {
		return nil // nothing stays out of the tunnel then
	}
	for _, i := range all {
		for _, p := range i.Addrs {
			if a := p.Addr(); !i.Loopback && a.Zone() == "" && !p.IsSingleIP() && !packetfilter.IsTailscale(a) {
				networks = append(networks, p.Masked())
			}
		}
	}
	return networks
}
