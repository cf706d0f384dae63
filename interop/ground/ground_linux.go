package ground

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// ServerAddr is the address in the core at which servers listen; one of those
// set aside for documentation (RFC 5737), as all public addresses here.
var ServerAddr = netip.MustParseAddr("192.0.2.1")

// Limits of a ground, by its addresses.
const (
	maxSites  = 30 // prefixes of 8 addresses in 203.0.113.0/24, the first unused; as many in 192.168.1.0/24
	maxLeases = 5  // addresses of a site's hosts, by the same
)

// A Ground is a small internet. Its methods, and those of its sites and hosts,
// may be called from any goroutine.
type Ground struct {
	Internet *Namespace // the core; servers run in it

	mu    sync.Mutex
	sites []*Site
}

// New makes a ground that is nothing but its core, for the time of a test. Where
// no ground can be built it skips the test, but fails it where root runs it as a
// check (the environment has CI set): there it must not pass unseen.
func New(t testing.TB) *Ground {
	t.Helper()
	if err := Supported(); err != nil {
		if os.Getenv("CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	core, err := newNamespace("internet")
	if err != nil {
		t.Fatal(err)
	}
	g := &Ground{Internet: core}
	t.Cleanup(g.close) // programs in it have ended by then, if they were started after this
	if err := errors.Join(core.forward(), core.addAddr("lo", netip.PrefixFrom(ServerAddr, ServerAddr.BitLen()))); err != nil {
		t.Fatal(err)
	}
	return g
}

// close takes everything away.
func (g *Ground) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sites {
		s.close()
	}
	g.Internet.Close()
}

// forward makes a namespace pass packets on from one interface to another.
func (n *Namespace) forward() error { return n.sysctl("ipv4/ip_forward", "1") }

// A Site is a home or an office: a gateway with a link to the core, and hosts on
// one LAN behind it.
type Site struct {
	Link *Link // from the gateway to the core

	number  int // from 1
	nat     NAT
	gateway *Namespace
	outside netip.Addr // the gateway's public address
	lan     netip.Prefix

	// firstLease is the last byte of the first host's address, behind the
	// network's. No two sites give out the same addresses.
	firstLease int

	mapper *mapper // port mapping by NAT-PMP; nil without

	mu      sync.Mutex
	hosts   []*Host
	leases  int // addresses given out, never the same one again
	blocked bool
}

// Interfaces of a gateway.
const (
	outsideName = "wan"
	insideName  = "lan"
)

// Site adds a site with a kind of gateway.
func (g *Ground) Site(nat NAT) (*Site, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	number := len(g.sites) + 1
	if number > maxSites {
		return nil, fmt.Errorf("site %d: a ground has at most %d", number, maxSites)
	}
	gateway, err := newNamespace(fmt.Sprintf("gateway%d", number))
	if err != nil {
		return nil, err
	}
	s := &Site{
		number: number, nat: nat, gateway: gateway,
		outside: netip.AddrFrom4([4]byte{198, 51, 100, byte(number)}),
		lan:     netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 1, 0}), 24),

		firstLease: 8 * number,
	}
	if nat == Public {
		s.firstLease = 2 // behind the gateway's
		s.lan = netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(8 * number)}), 29)
	}
	if err := s.build(g.Internet); err != nil {
		s.close()
		return nil, err
	}
	g.sites = append(g.sites, s)
	return s, nil
}

// build joins the gateway to the core, gives it a LAN, and sets it up.
func (s *Site) build(core *Namespace) (err error) {
	coreName := fmt.Sprintf("site%d", s.number)
	s.Link, err = newLink(core, coreName, s.gateway, outsideName, uint64(s.number))
	if err != nil {
		return err
	}
	if err := s.gateway.net.LinkAdd(&netlink.Bridge{LinkAttrs: named(insideName)}); err != nil {
		return fmt.Errorf("%s: make bridge: %w", s.gateway, err)
	}
	err = errors.Join(
		s.gateway.forward(),
		s.gateway.up(insideName),
		s.gateway.addAddr(insideName, netip.PrefixFrom(s.inside(), s.lan.Bits())),
		s.gateway.addAddr(outsideName, netip.PrefixFrom(s.outside, 32)),
		s.gateway.route(outsideName, everywhere, netip.Addr{}),
		core.route(coreName, netip.PrefixFrom(s.outside, 32), netip.Addr{}),
	)
	if err == nil && s.nat == Public {
		err = core.route(coreName, s.lan, netip.Addr{})
	}
	if err != nil {
		return err
	}
	return s.translate()
}

var everywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// named returns link attributes with a name.
func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// inside returns the gateway's address on the LAN.
func (s *Site) inside() netip.Addr { return s.lan.Addr().Next() }

// Outside returns the gateway's public address, which is that of all hosts
// behind address translation.
func (s *Site) Outside() netip.Addr { return s.outside }

// LAN returns the prefix of the site's hosts.
func (s *Site) LAN() netip.Prefix { return s.lan }

// close takes the site away; it may be half built.
func (s *Site) close() {
	if s.mapper != nil {
		s.mapper.close()
	}
	if s.Link != nil {
		s.Link.Close()
	}
	for _, h := range s.hosts {
		h.Close()
	}
	s.gateway.Close()
}
