package vpn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// NetworkSettings are what a manager sets up for the tunnel's interface. Parts
// that are nil stay as they are.
type NetworkSettings struct {
	MTU  int             `json:",omitempty"` // in bytes; 0: stays as it is
	DNS  *DNSSettings    `json:",omitempty"`
	IPv4 *FamilySettings `json:",omitempty"`
	IPv6 *FamilySettings `json:",omitempty"`
}

// FamilySettings are those of IPv4 or of IPv6. Without an address there is
// nothing of that family.
type FamilySettings struct {
	Addrs    []netip.Prefix // of the interface, with the prefix length to set
	Included []netip.Prefix `json:",omitempty"` // networks that go into the tunnel
	Excluded []netip.Prefix `json:",omitempty"` // networks in these that do not
}

// DNSSettings say which questions go to which servers.
type DNSSettings struct {
	Servers       []netip.Addr
	SearchDomains []string `json:",omitempty"`
	DomainName    string   `json:",omitempty"`
	MatchDomains  []string `json:",omitempty"` // which names; one empty text: all
	NoSearch      bool     `json:",omitempty"` // MatchDomains are not searched in
}

// Merge applies a change as managers do (VPN-50): a part that is present takes
// the place of the old one as a whole.
func (s NetworkSettings) Merge(change NetworkSettings) NetworkSettings {
	if change.MTU != 0 {
		s.MTU = change.MTU
	}
	if change.DNS != nil {
		s.DNS = change.DNS
	}
	if change.IPv4 != nil {
		s.IPv4 = change.IPv4
	}
	if change.IPv6 != nil {
		s.IPv6 = change.IPv6
	}
	return s
}

// toWire is the request for these settings.
func (s *NetworkSettings) toWire() *wire.NetworkSettingsRequest {
	m := &wire.NetworkSettingsRequest{Mtu: uint32(s.MTU)}
	if d := s.DNS; d != nil {
		m.DnsSettings = &wire.NetworkSettingsRequest_DNSSettings{
			Servers: each(d.Servers, netip.Addr.String), SearchDomains: each(d.SearchDomains, valid), DomainName: valid(d.DomainName),
			MatchDomains: each(d.MatchDomains, valid), MatchDomainsNoSearch: d.NoSearch,
		}
	}
	if f := s.IPv4; f != nil {
		m.Ipv4Settings = &wire.NetworkSettingsRequest_IPv4Settings{
			Addrs: each(f.Addrs, addrText), SubnetMasks: each(f.Addrs, maskText),
			IncludedRoutes: each(f.Included, route4), ExcludedRoutes: each(f.Excluded, route4),
		}
	}
	if f := s.IPv6; f != nil {
		m.Ipv6Settings = &wire.NetworkSettingsRequest_IPv6Settings{
			Addrs: each(f.Addrs, addrText), PrefixLengths: each(f.Addrs, func(p netip.Prefix) uint32 { return uint32(p.Bits()) }),
			IncludedRoutes: each(f.Included, route6), ExcludedRoutes: each(f.Excluded, route6),
		}
	}
	return m
}

func addrText(p netip.Prefix) string { return p.Addr().String() }

// maskText is the dotted mask of an IPv4 network.
func maskText(p netip.Prefix) string { return net.IP(net.CIDRMask(p.Bits(), 32)).String() }

func route4(p netip.Prefix) *wire.NetworkSettingsRequest_IPv4Settings_IPv4Route {
	return &wire.NetworkSettingsRequest_IPv4Settings_IPv4Route{Destination: p.Masked().Addr().String(), Mask: maskText(p)}
}

func route6(p netip.Prefix) *wire.NetworkSettingsRequest_IPv6Settings_IPv6Route {
	return &wire.NetworkSettingsRequest_IPv6Settings_IPv6Route{Destination: p.Masked().Addr().String(), PrefixLength: uint32(p.Bits())}
}

// settingsOf reads and checks what a tunnel asks for: all of it or nothing is good
// (VPN-50). Routers are left out: the interface itself is the way.
func settingsOf(m *wire.NetworkSettingsRequest) (s NetworkSettings, err error) {
	const maxMTU = 65535 // of an IPv4 packet, in bytes; RFC 791 section 3.1
	if m.GetMtu() > maxMTU {
		return s, fmt.Errorf("vpn: network settings: MTU %d: want at most %d", m.GetMtu(), maxMTU)
	}
	s.MTU = int(m.GetMtu())
	if d := m.GetDnsSettings(); d != nil {
		if s.DNS, err = dnsOf(d); err != nil {
			return s, fmt.Errorf("vpn: network settings: DNS: %w", err)
		}
	}
	if f := m.GetIpv4Settings(); f != nil {
		if s.IPv4, err = ipv4Of(f); err != nil {
			return s, fmt.Errorf("vpn: network settings: IPv4: %w", err)
		}
	}
	if f := m.GetIpv6Settings(); f != nil {
		if s.IPv6, err = ipv6Of(f); err != nil {
			return s, fmt.Errorf("vpn: network settings: IPv6: %w", err)
		}
	}
	return s, nil
}

func dnsOf(m *wire.NetworkSettingsRequest_DNSSettings) (*DNSSettings, error) {
	d := &DNSSettings{
		SearchDomains: m.GetSearchDomains(), DomainName: m.GetDomainName(),
		MatchDomains: m.GetMatchDomains(), NoSearch: m.GetMatchDomainsNoSearch(),
	}
	for _, text := range m.GetServers() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		d.Servers = append(d.Servers, a)
	}
	return d, nil
}

func ipv4Of(m *wire.NetworkSettingsRequest_IPv4Settings) (*FamilySettings, error) {
	if len(m.GetAddrs()) != len(m.GetSubnetMasks()) {
		return nil, fmt.Errorf("%d addresses with %d masks", len(m.GetAddrs()), len(m.GetSubnetMasks()))
	}
	f := new(FamilySettings)
	for i, text := range m.GetAddrs() {
		p, err := prefix4(text, m.GetSubnetMasks()[i])
		if err != nil {
			return nil, err
		}
		f.Addrs = append(f.Addrs, p)
	}
	routes := func(list *[]netip.Prefix, from []*wire.NetworkSettingsRequest_IPv4Settings_IPv4Route) error {
		for _, r := range from {
			p, err := prefix4(r.GetDestination(), r.GetMask())
			if err != nil {
				return fmt.Errorf("route: %w", err)
			}
			*list = append(*list, p.Masked())
		}
		return nil
	}
	return f, errors.Join(routes(&f.Included, m.GetIncludedRoutes()), routes(&f.Excluded, m.GetExcludedRoutes()))
}

// prefix4 reads an address with a dotted mask.
func prefix4(addr, mask string) (p netip.Prefix, err error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return p, err
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || !a.Is4() || !m.Is4() {
		return p, fmt.Errorf("%q with mask %q: want an IPv4 address, and a mask such as 255.255.255.0", addr, mask)
	}
	ones, bits := net.IPMask(m.AsSlice()).Size()
	if bits == 0 {
		return p, fmt.Errorf("mask %q of %q has holes", mask, addr)
	}
	return netip.PrefixFrom(a, ones), nil
}

func ipv6Of(m *wire.NetworkSettingsRequest_IPv6Settings) (*FamilySettings, error) {
	if len(m.GetAddrs()) != len(m.GetPrefixLengths()) {
		return nil, fmt.Errorf("%d addresses with %d prefix lengths", len(m.GetAddrs()), len(m.GetPrefixLengths()))
	}
	f := new(FamilySettings)
	for i, text := range m.GetAddrs() {
		p, err := prefix6(text, m.GetPrefixLengths()[i])
		if err != nil {
			return nil, err
		}
		f.Addrs = append(f.Addrs, p)
	}
	routes := func(list *[]netip.Prefix, from []*wire.NetworkSettingsRequest_IPv6Settings_IPv6Route) error {
		for _, r := range from {
			p, err := prefix6(r.GetDestination(), r.GetPrefixLength())
			if err != nil {
				return fmt.Errorf("route: %w", err)
			}
			*list = append(*list, p.Masked())
		}
		return nil
	}
	return f, errors.Join(routes(&f.Included, m.GetIncludedRoutes()), routes(&f.Excluded, m.GetExcludedRoutes()))
}

// prefix6 reads an address with the length of its prefix.
func prefix6(addr string, length uint32) (p netip.Prefix, err error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return p, err
	}
	if !a.Is6() || a.Is4In6() || a.Zone() != "" || length > 128 {
		return p, fmt.Errorf("%q/%d: want an IPv6 address, and a length up to 128", addr, length)
	}
	return netip.PrefixFrom(a, int(length)), nil
}
