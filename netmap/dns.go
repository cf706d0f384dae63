package netmap

// A DNSConfig says how names are resolved (control.md section 13.1).
type DNSConfig struct {
	Resolvers           []Resolver            `json:",omitempty"`
	Routes              map[string][]Resolver `json:",omitempty"` // suffix to resolvers; an empty list = answer ourselves
	FallbackResolvers   []Resolver            `json:",omitempty"`
	Domains             []string              `json:",omitempty"` // search domains, no trailing dot
	Proxied             bool                  `json:",omitempty"` // MagicDNS is on
	CertDomains         []string              `json:",omitempty"`
	ExtraRecords        []DNSRecord           `json:",omitempty"`
	ExitNodeFilteredSet []string              `json:",omitempty"`
}

// A Resolver is one upstream DNS server.
type Resolver struct {
	Addr                string   `json:",omitempty"` // ip, ip:port, https:// or http:// URL
	BootstrapResolution []string `json:",omitempty"`
	UseWithExitNode     bool     `json:",omitempty"`
}

// A DNSRecord is an extra record; Type is empty, "A" or "AAAA".
type DNSRecord struct {
	Name  string
	Type  string `json:",omitempty"`
	Value string
}
