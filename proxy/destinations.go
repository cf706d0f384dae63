package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/proxy/socks"
)

// A Destination is a set of addresses that clients of proxies may ask for.
type Destination struct {
	name        string       // in lower case; "*" is any, "*.x" any name below x
	network     netip.Prefix // where valid, in place of name
	first, last int          // ports
}

// ParseDestination reads "host", "*.domain", "*", an IP address or a network in
// CIDR form, each perhaps with ":port" or ":first-last" behind it; an IPv6 one with
// a port stands in brackets. A name is compared with what the client asks for, not
// with what it resolves to, and so is an address.
func ParseDestination(text string) (Destination, error) {
	host, ports, err := splitPorts(text)
	if err != nil {
		return Destination{}, fmt.Errorf("destination %q: %w", text, err)
	}
	d := Destination{first: ports[0], last: ports[1]}
	if d.network, err = netip.ParsePrefix(host); err == nil {
		return d, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		d.network = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return d, nil
	}
	if host == "" || strings.ContainsAny(host, ":/[] ") || strings.Contains(strings.TrimPrefix(host, "*"), "*") {
		return Destination{}, fmt.Errorf("destination %q: want a name, *.domain, an address or a network, as in web:80 or 10.0.0.0/8", text)
	}
	d.name = strings.ToLower(strings.TrimSuffix(host, "."))
	return d, nil
}

// splitPorts cuts what follows the last colon off, unless that is within an IPv6
// address.
func splitPorts(text string) (host string, between [2]int, err error) {
	between = [2]int{1, 65535}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, text, ok = strings.Cut(inner, "]")
		if !ok || text != "" && text[0] != ':' {
			return "", between, fmt.Errorf("brackets do not match")
		}
		if text == "" {
			return host, between, nil
		}
		text = text[1:]
	} else if strings.Count(text, ":") != 1 {
		return text, between, nil
	} else {
		host, text, _ = strings.Cut(text, ":")
	}
	between[0], between[1], err = ports(text, false)
	return host, between, err
}

// matches reports whether a client that asks for host and port asks for one of d.
func (d *Destination) matches(host string, port int) bool {
	if port < d.first || port > d.last {
		return false
	}
	if d.network.IsValid() {
		a, err := netip.ParseAddr(host)
		return err == nil && d.network.Contains(a.Unmap().WithZone(""))
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if below, ok := strings.CutPrefix(d.name, "*"); ok {
		return strings.HasSuffix(host, below)
	}
	return host == d.name
}

// permits returns why a client may not ask for an address.
func (p *Proxies) permits(address string) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	to, err := port(portText, false)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(host); err == nil && !p.AllowLoopback && ofThisMachine(a) {
		return fmt.Errorf("%s: %w", address, socks.ErrNotAllowed)
	}
	for i := range p.Allow {
		if p.Allow[i].matches(host, to) {
			return nil
		}
	}
	if len(p.Allow) > 0 {
		return fmt.Errorf("%s: %w", address, socks.ErrNotAllowed)
	}
	return nil
}

// ofThisMachine reports whether an address is of this machine alone, or of its link: what
// is there does not expect to be asked from elsewhere (SVC-167).
func ofThisMachine(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified()
}
