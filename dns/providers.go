package dns

import "net/netip"

// A provider is a public resolver that answers over HTTPS at the addresses where
// it answers plain DNS, with the same filtering.
type provider struct {
	url   string
	addrs [4]netip.Addr
}

func newProvider(url string, addrs ...string) *provider {
	p := &provider{url: url}
	for i, a := range addrs {
		p.addrs[i] = netip.MustParseAddr(a)
	}
	return p
}

// providers are the well-known public resolvers (SVC-77), as their operators
// publish them: developers.cloudflare.com/1.1.1.1/setup and
// /1.1.1.1/encryption/dns-over-https, developers.google.com/speed/public-dns/docs/doh,
// quad9.net/service/service-addresses-and-features.
var providers = []*provider{
	newProvider("https://cloudflare-dns.com/dns-query", "1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
	newProvider("https://security.cloudflare-dns.com/dns-query", "1.1.1.2", "1.0.0.2", "2606:4700:4700::1112", "2606:4700:4700::1002"),
	newProvider("https://family.cloudflare-dns.com/dns-query", "1.1.1.3", "1.0.0.3", "2606:4700:4700::1113", "2606:4700:4700::1003"),
	newProvider("https://dns.google/dns-query", "8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
	newProvider("https://dns.quad9.net/dns-query", "9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
	newProvider("https://dns10.quad9.net/dns-query", "9.9.9.10", "149.112.112.10", "2620:fe::10", "2620:fe::fe:10"),
	newProvider("https://dns11.quad9.net/dns-query", "9.9.9.11", "149.112.112.11", "2620:fe::11", "2620:fe::fe:11"),
}

// providerOf returns the provider that answers at an address, nil if none does.
func providerOf(a netip.AddrPort) *provider {
	if a.Port() != dnsPort {
		return nil
	}
	for _, p := range providers {
		for _, has := range p.addrs {
			if has == a.Addr() {
				return p
			}
		}
	}
	return nil
}

func providerOfURL(url string) *provider {
	for _, p := range providers {
		if p.url == url {
			return p
		}
	}
	return nil
}
