package bootstrap

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
)

// answers are what is told until the next refresh.
type answers struct {
	published   []byte          // JSON of all published names
	has         map[string]bool // published names that resolve
	unpublished map[string]unpublished
}

// unpublished is the answer to a question for one unpublished name.
type unpublished struct {
	json    []byte
	percent int // of the clients that get it
}

// noAnswers is what a service that has resolved nothing yet tells.
var noAnswers = newAnswers(nil)

func newAnswers(all []*lookup) *answers {
	a := &answers{has: make(map[string]bool), unpublished: make(map[string]unpublished)}
	public := make(map[string][]netip.Addr)
	for _, l := range all {
		switch {
		case len(l.addrs) == 0:
		case l.unpublished:
			a.unpublished[l.name] = unpublished{encode(map[string][]netip.Addr{l.name: l.addrs}), l.percent}
		default:
			public[l.name], a.has[l.name] = l.addrs, true
		}
	}
	a.published = encode(public)
	return a
}

// encode returns the JSON of an answer, indented with tabs (DERP-104).
func encode(m map[string][]netip.Addr) []byte {
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil { // strings and addresses can be encoded
		panic(fmt.Sprintf("bootstrap: encode answer: %v", err))
	}
	return b
}

// ServeHTTP answers /bootstrap-dns: an unpublished name that is asked for by
// ?q= to those clients that may know it, else all published names (DERP-104).
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.counters.requests.Add(1)
	a := s.answers.Get()
	body := a.published
	if q := r.URL.Query().Get("q"); q != "" {
		s.counters.queried.add(q)
		if u, ok := a.unpublished[q]; ok && s.reveals(u, r.RemoteAddr) {
			body = u.json
		} else if !ok {
			s.countOther(a, q)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close") // a client asks a relay once
	w.Write(body)
}

// reveals decides, and counts, whether a client is told an unpublished name.
func (s *Service) reveals(u unpublished, remote string) bool {
	if inRollout(remote, u.percent) {
		s.counters.unpublishedHits.Add(1)
		return true
	}
	s.counters.unpublishedPercentMisses.Add(1)
	return false
}

// countOther counts a question for a name that is not, or not yet, among the
// unpublished ones that resolve.
func (s *Service) countOther(a *answers, q string) {
	switch {
	case a.has[q]:
		s.counters.publishedHits.Add(1)
	case s.publishes(q):
		s.counters.publishedMisses.Add(1)
	default:
		s.counters.unpublishedMisses.Add(1)
	}
}

func (s *Service) publishes(name string) bool {
	return slices.ContainsFunc(s.published, func(e entry) bool { return e.name == name })
}

// inRollout reports whether the client at an address is among a percentage of
// all. The same client always is or is not, so that asking again changes
// nothing; from this host it is chance, for trying out (DERP-104).
func inRollout(remote string, percent int) bool {
	from, err := netip.ParseAddrPort(remote)
	switch addr := from.Addr().Unmap(); {
	case percent >= 100:
		return true
	case err != nil:
		return false
	case addr.IsLoopback():
		return rand.IntN(100) < percent
	default:
		b := addr.As16()
		h := fnv.New64a()
		h.Write(b[:])
		return h.Sum64()%100 < uint64(percent)
	}
}
