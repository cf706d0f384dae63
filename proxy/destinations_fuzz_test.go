package proxy

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

// FuzzDestination: whatever the operator writes is refused with its text, or matches
// only what its ports and its name or network say.
func FuzzDestination(f *testing.F) {
	for _, seed := range []string{
		"web:80", "*", "*.example.org:1-1024", "10.0.0.0/8", "[fd7a:115c:a1e0::/48]:443", "[::1]", "::1", "::ffff:10.0.0.1",
		"web.:80", "", ":", "[", "[]:1", "web:80-79", "web:99999", "a*b", "*.*", "fe80::1%eth0", "WEB",
	} {
		f.Add(seed, "web.example.org", uint16(443))
	}
	f.Add("10.0.0.0/8:80", "10.1.2.3", uint16(80))
	f.Fuzz(func(t *testing.T, text, host string, to uint16) {
		d, err := ParseDestination(text)
		if err != nil {
			if !strings.Contains(err.Error(), strconv.Quote(text)) {
				t.Errorf("%q: the error does not name it: %v", text, err)
			}
			return
		}
		if d.first < 1 || d.last > 65535 || d.first > d.last {
			t.Errorf("%q: ports %d-%d", text, d.first, d.last)
		}
		if !d.matches(host, int(to)) {
			return
		}
		isAddress := net.ParseIP(strings.Split(host, "%")[0]) != nil
		switch {
		case int(to) < d.first || int(to) > d.last:
			t.Errorf("%q matches port %d", text, to)
		case d.network.IsValid() && !isAddress:
			t.Errorf("%q, a network, matches the name %q", text, host)
		}
		if !d.matches(strings.ToUpper(host), int(to)) && isASCII(host) {
			t.Errorf("%q matches %q, but not in capitals", text, host)
		}
	})
}

// isASCII reports whether the capitals of a text are those of its small letters.
func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
}
