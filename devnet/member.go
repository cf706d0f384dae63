package devnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A member is one node of the tailnet. Its exported fields are stored.
type member struct {
	ID        netmap.NodeID
	StableID  netmap.StableID
	Name      string // first label of the DNS name
	User      netmap.UserID
	Machine   key.MachinePublic
	Key       key.NodePublic
	KeyExpiry time.Time // zero: never
	Disco     key.DiscoPublic
	Addresses []netip.Prefix
	Tags      []string
	Ephemeral bool
	Approved  bool
	Created   time.Time
	LastSeen  time.Time

	HomeDERP  int               `json:",omitempty"`
	Cap       int               `json:",omitempty"`
	Endpoints []netip.AddrPort  `json:",omitempty"`
	Hostinfo  *control.Hostinfo `json:",omitempty"`
	Routes    []netip.Prefix    `json:",omitempty"` // approved ones

	version uint64 // grows with each change that peers see
	stream  *stream
	forget  *time.Timer // of an ephemeral node that is away
}

// expired reports whether the node key has expired.
func (m *member) expired(now time.Time) bool { return !m.KeyExpiry.IsZero() && !now.Before(m.KeyExpiry) }

// node is the member as the map shows it to others, or to itself.
func (m *member) node(domain string, self bool, now time.Time) *control.Node {
	online := m.stream != nil
	n := &control.Node{
		ID: m.ID, StableID: m.StableID, Name: m.Name + "." + domain + ".", User: m.User,
		Key: m.Key, KeyExpiry: m.KeyExpiry, Machine: m.Machine, DiscoKey: m.Disco,
		Addresses: m.Addresses, AllowedIPs: slices.Concat(m.Addresses, m.Routes), PrimaryRoutes: m.Routes,
		Endpoints: m.Endpoints, HomeDERP: m.HomeDERP, Created: m.Created, Cap: m.Cap, Tags: m.Tags,
		MachineAuthorized: m.Approved, Expired: m.expired(now), Online: &online, Hostinfo: m.Hostinfo,
	}
	if m.HomeDERP != 0 {
		n.DERP = fmt.Sprintf("127.3.3.40:%d", m.HomeDERP) // what older clients read
	}
	if !self {
		n.Hostinfo = visible(m.Hostinfo)
		if !online && !m.LastSeen.IsZero() {
			n.LastSeen = &m.LastSeen
		}
	}
	return n
}

// visible is the part of a Hostinfo that peers may see.
func visible(h *control.Hostinfo) *control.Hostinfo {
	if h == nil {
		return nil
	}
	return &control.Hostinfo{OS: h.OS, Hostname: h.Hostname, Services: h.Services, ShareeNode: h.ShareeNode}
}

// firstIPv4 and firstIPv6 are where addresses are given from; the first
// of each is left out.
var (
	firstIPv4 = netip.MustParseAddr("100.64.0.0")
	prefixV4  = netip.MustParsePrefix("100.64.0.0/10")
	prefixV6  = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
	reserved  = []netip.Prefix{
		netip.MustParsePrefix("100.100.100.0/24"), // service addresses
		netip.MustParsePrefix("100.115.92.0/23"),  // taken by ChromeOS
	}
)

// addressesFor returns the addresses of the n-th node: one of each family that
// show the same number.
func addressesFor(n uint32) ([]netip.Prefix, error) {
	b := firstIPv4.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	four := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	if !prefixV4.Contains(four) {
		return nil, fmt.Errorf("devnet: no address is left after %d nodes", n)
	}
	six := prefixV6.Addr().As16()
	six[12], six[13], six[14], six[15] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return []netip.Prefix{netip.PrefixFrom(four, 32), netip.PrefixFrom(netip.AddrFrom16(six), 128)}, nil
}

// usable reports whether addresses that addressesFor gave may be used.
func usable(addrs []netip.Prefix) bool {
	a := addrs[0].Addr()
	last := a.As4()[3]
	return last != 0 && last != 255 && !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

// cleanName makes a DNS label of a host name: lower case letters, digits and
// hyphens.
func cleanName(hostname string) string {
	label, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	label = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r == '_' || r == ' ':
			return '-'
		}
		return -1
	}, label)
	label = strings.Trim(label[:min(len(label), 63)], "-")
	if label == "" {
		return "node"
	}
	return label
}
