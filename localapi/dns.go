package localapi

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/seed94491740/tsnode/netmap"
)

// dnsConfig answers with what the tailnet says of names.
func (s *Server) dnsConfig(w http.ResponseWriter, _ *http.Request) {
	s.withNetmap(w, func(nm *netmap.Netmap) {
		if nm.DNS == nil {
			writeJSON(w, netmap.DNSConfig{})
			return
		}
		writeJSON(w, nm.DNS)
	})
}

// dnsOSConfig answers with what the node makes of the host's resolver: nothing.
func (s *Server) dnsOSConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, struct{ Nameservers, SearchDomains, MatchDomains []string }{})
}

// certDomains answers with the names that certificates may be had for.
func (s *Server) certDomains(w http.ResponseWriter, _ *http.Request) {
	domains := []string{}
	if nm := s.config.Node.Snapshot().Netmap; nm != nil && nm.DNS != nil {
		domains = slices.Sorted(slices.Values(nm.DNS.CertDomains))
	}
	writeJSON(w, domains)
}

// A DNSResponse is what the endpoint dns-query answers. Detail is ours.
type DNSResponse struct {
	Bytes     []byte
	Resolvers []netmap.Resolver
	Detail    any
}

// dnsQuery asks the node's DNS.
func (s *Server) dnsQuery(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if name == "" {
		http.Error(w, "missing 'name' parameter", http.StatusBadRequest)
		return
	}
	takeTime(w)
	a, err := s.config.Node.QueryDNS(r.Context(), name, cmp.Or(r.FormValue("type"), "A"))
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	answer := DNSResponse{Bytes: a.Message, Detail: a.Detail}
	for _, addr := range a.Resolvers {
		answer.Resolvers = append(answer.Resolvers, netmap.Resolver{Addr: addr})
	}
	writeJSON(w, answer)
}
