package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

// resolver4 and resolver6 are the addresses of the name service, a host on the
// Internet without distance to anybody.
var (
	resolver4 = netip.MustParseAddr("192.0.2.53")
	resolver6 = netip.MustParseAddr("2001:db8:ffff:ffff::53")
)

const (
	lookupTimeout  = 5 * time.Second // for an answer; resolv.conf(5): timeout
	lookupAttempts = 2               // resolv.conf(5): attempts
)

// startResolver attaches the name service.
func (n *Internet) startResolver() {
	n.resolver = newHost(n, "resolver", HostConfig{})
	n.resolver.plug(&n.core, []netip.Addr{resolver4, resolver6})
	n.hosts = append(n.hosts, n.resolver)
	// RFC 7050 section 8.2: how hosts find out about NAT64.
	n.names["ipv4only.arpa"] = []netip.Addr{netip.MustParseAddr("192.0.0.170"), netip.MustParseAddr("192.0.0.171")}
}

// SetName gives a name addresses, or takes them away if there are none.
func (n *Internet) SetName(name string, addrs ...netip.Addr) {
	n.acquire()
	defer n.release()
	if name = canonical(name); len(addrs) == 0 {
		delete(n.names, name)
		return
	}
	n.names[name] = append([]netip.Addr(nil), addrs...)
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// LookupNetIP implements host.Network. It takes a round trip to the name
// service, which any network may lose; hosts without IPv4 behind NAT64 get
// addresses there, too.
func (h *Host) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return wanted(network, name, []netip.Addr{a.Unmap()})
	}
	if canonical(name) == "localhost" {
		return wanted(network, name, []netip.Addr{loopback(false), loopback(true)})
	}
	if err := h.askResolver(ctx); err != nil {
		return nil, lookupError(ctx, name, err)
	}
	n := h.net
	n.acquire()
	defer n.release()
	addrs := append([]netip.Addr(nil), n.names[canonical(name)]...)
	if h.synthesizes() {
		addrs = synthesize(addrs)
	}
	return wanted(network, name, addrs)
}

// wanted returns the addresses of the families asked for.
func wanted(network, name string, addrs []netip.Addr) (some []netip.Addr, err error) {
	for _, a := range addrs {
		if network == "ip" || network == "ip4" && a.Is4() || network == "ip6" && a.Is6() {
			some = append(some, a)
		}
	}
	if len(some) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return some, nil
}

// askResolver makes sure that the name service can be reached.
func (h *Host) askResolver(ctx context.Context) (err error) {
	to := resolver4
	if !h.Addr4().IsValid() {
		to = resolver6
	}
	for range lookupAttempts {
		try, cancel := context.WithTimeout(ctx, lookupTimeout)
		err = h.roundTrip(try, to, nil)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return err
}

func lookupError(ctx context.Context, name string, err error) error {
	e := &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: name, Server: netip.AddrPortFrom(resolver4, 53).String(), IsTemporary: true}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		e.Err, e.IsTimeout = "i/o timeout", true
	}
	return e
}

// synthesizes reports whether a DNS64 answers h: it has no IPv4 and is behind a
// NAT64.
func (h *Host) synthesizes() bool {
	if h.port.on == nil || h.port.on.uplink == nil || h.port.first(false).IsValid() {
		return false
	}
	return h.port.on.uplink.node.router.cfg.NAT64
}

// synthesize adds addresses behind NAT64 for a name that has no IPv6 ones (RFC
// 6147 section 5.1.6).
func synthesize(addrs []netip.Addr) []netip.Addr {
	made := addrs
	for _, a := range addrs {
		if a.Is6() {
			return addrs
		}
		made = append(made, embed(a))
	}
	return made
}
