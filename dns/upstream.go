package dns

import (
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Times of a forwarded question (SVC-75, SVC-77).
const (
	dohHeadStart = 500 * time.Millisecond // of HTTPS before plain DNS to the same provider
	secondDelay  = 200 * time.Millisecond // of a provider's further addresses
)

// dnsPort is where plain DNS is asked unless the resolver says otherwise.
const dnsPort = 53

// An Upstream is one way to ask a server.
type Upstream struct {
	Addr  netip.AddrPort `json:",omitzero"`  // of plain DNS; not valid for HTTP
	URL   string         `json:",omitempty"` // of DNS over HTTP or HTTPS (RFC 8484)
	Delay time.Duration  `json:"-"`          // how long the others have before it is asked

	at []netip.Addr // where URL's host is; none: the host's resolver knows
}

// String returns the address or URL.
func (u Upstream) String() string {
	if u.URL != "" {
		return u.URL
	}
	return u.Addr.String()
}

// plan says how to ask resolvers (SVC-77): well-known ones over HTTPS first, and
// over plain DNS should that take long.
func (t *Table) plan(resolvers []netmap.Resolver) (ways []Upstream) {
	var plain, other []Upstream
	for _, r := range resolvers {
		u, err := parseResolver(r)
		switch {
		case err != "":
			t.problem("resolver %q: %s", r.Addr, err)
		case u.URL != "":
			other = append(other, u)
		default:
			plain = append(plain, u)
		}
	}
	asked := make(map[string]bool) // providers over HTTPS
	for _, u := range plain {
		if p := providerOf(u.Addr); p != nil && !asked[p.url] {
			asked[p.url] = true
			ways = append(ways, Upstream{URL: p.url, at: p.addrs[:]})
		}
	}
	before := make(map[providerFamily]bool)
	for _, u := range plain {
		if p := providerOf(u.Addr); p != nil {
			u.Delay = dohHeadStart
			same := providerFamily{p.url, u.Addr.Addr().Is4()}
			if before[same] {
				u.Delay += secondDelay
			}
			before[same] = true
		}
		ways = append(ways, u)
	}
	return append(ways, other...)
}

// A providerFamily is the addresses of one IP version of a provider.
type providerFamily struct {
	url string
	is4 bool
}

// parseResolver parses the forms of a resolver's address (section 7.1).
func parseResolver(r netmap.Resolver) (u Upstream, problem string) {
	at, err := netip.ParseAddrPort(r.Addr)
	if a, err := netip.ParseAddr(r.Addr); err == nil {
		at = netip.AddrPortFrom(a, dnsPort)
	} else if strings.Contains(r.Addr, "://") {
		return parseURL(r)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	switch {
	case !at.IsValid() && err != nil || at.Port() == 0:
		return u, "want IP, IP:port, https://HOST/PATH or http://IP:PORT/dns-query"
	case IsService(at.Addr()):
		return u, "that is this node itself"
	}
	return Upstream{Addr: at}, ""
}

// parseURL is parseResolver for URLs. One of https may name its host, whose
// addresses are BootstrapResolution or what the host's resolver says.
func parseURL(r netmap.Resolver) (u Upstream, problem string) {
	parsed, err := url.Parse(r.Addr)
	if err != nil || parsed.Hostname() == "" {
		return u, "want https://HOST/PATH or http://IP:PORT/dns-query"
	}
	at, err := netip.ParseAddr(parsed.Hostname())
	switch {
	case parsed.Scheme == "http" && err != nil:
		return u, "DNS over HTTP is for peers: want http://IP:PORT/dns-query"
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return u, "DNS over " + parsed.Scheme + " is not supported: want an IP address or https://HOST/PATH"
	}
	u.URL = r.Addr
	if err == nil {
		u.at = []netip.Addr{at.Unmap()}
		return u, ""
	}
	if p := providerOfURL(r.Addr); p != nil {
		u.at = p.addrs[:]
		return u, ""
	}
	for _, text := range r.BootstrapResolution {
		if a, err := netip.ParseAddr(text); err == nil {
			u.at = append(u.at, a.Unmap())
		}
	}
	return u, ""
}
