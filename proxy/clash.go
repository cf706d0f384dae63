package proxy

import (
	"net"
	"net/netip"
	"strings"
)

// Clashes returns pairs of forwards, by their indices, of which one alone can listen:
// they want the same port of the node, or of this machine. A proxy of both kinds on
// one address is one, as is what is there twice.
func Clashes(all []Spec) (pairs [][2]int) {
	before := make(map[place][]int)
	for i, s := range all {
		at, ok := s.place()
		if !ok {
			continue
		}
		for _, j := range before[at] {
			if s.clashes(all[j]) {
				pairs = append(pairs, [2]int{j, i})
				break // one is enough to say of each
			}
		}
		before[at] = append(before[at], i)
	}
	return pairs
}

// A place is where a forward listens, but for the address.
type place struct {
	tailnet       bool
	network, port string // or unix and a path
}

// place returns where s listens; false: on a port that is another one each time.
func (s Spec) place() (place, bool) {
	if path, ok := strings.CutPrefix(s.Listen, unixPrefix); ok {
		return place{network: "unix", port: path}, true
	}
	_, port, _ := net.SplitHostPort(s.Listen)
	return place{s.Kind == Remote, s.Network, port}, port != "0"
}

// clashes reports whether two forwards of one place cannot be there together.
func (s Spec) clashes(other Spec) bool {
	if s == other || s.counterpart() == other {
		return false
	}
	a, _, _ := net.SplitHostPort(s.Listen)
	b, _, _ := net.SplitHostPort(other.Listen)
	switch {
	case a == b, isEvery(a) && isEvery(b):
		return true // one address and all can be apart: what is nearer has the connection
	case s.Kind != Remote && isLoopback(a) && isLoopback(b):
		return a == loopbackName || b == loopbackName
	}
	return false
}

// isEvery reports whether a host to listen on is all addresses.
func isEvery(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

// isLoopback reports whether a host is localhost or one of its addresses.
func isLoopback(host string) bool {
	return host == loopbackName || host == "127.0.0.1" || host == "::1"
}
