package devnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Where tailnet addresses come from (node-services.md section 1). The number of
// a node is in the low bits of both its addresses.
var (
	prefixV4 = netip.MustParsePrefix("100.64.0.0/10")
	prefixV6 = netip.MustParsePrefix("fd7a:115c:a1e0::/48")

	// reservedV4 holds addresses that no node may have.
	reservedV4 = []netip.Prefix{
		netip.MustParsePrefix("100.100.0.0/24"),   // of the service's own hosts
		netip.MustParsePrefix("100.100.100.0/24"), // service addresses, DNS among them
		netip.MustParsePrefix("100.115.92.0/23"),  // taken by ChromeOS (SVC-01)
	}
)

// serviceV6 is the last part of the service address fd7a:115c:a1e0::53.
const serviceV6 = 0x53

// addressesFor returns both addresses of the n-th node, from 1; ok is false when
// that number is not to be used, and an error says that there are no more.
func addressesFor(n uint32) (addrs []netip.Prefix, ok bool, err error) {
	base := prefixV4.Addr().As4()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])+n)
	four := netip.AddrFrom4(b)
	if !prefixV4.Contains(four) {
		return nil, false, fmt.Errorf("all %d addresses of the tailnet are taken", n)
	}
	six := prefixV6.Addr().As16()
	binary.BigEndian.PutUint32(six[12:], n)
	unusable := b[3] == 0 || b[3] == 255 || n == serviceV6 ||
		slices.ContainsFunc(reservedV4, func(p netip.Prefix) bool { return p.Contains(four) })
	return []netip.Prefix{netip.PrefixFrom(four, 32), netip.PrefixFrom(netip.AddrFrom16(six), 128)}, !unusable, nil
}

// newAddresses gives out the next addresses.
func (t *tailnet) newAddresses() ([]netip.Prefix, error) {
	for {
		addrs, ok, err := addressesFor(t.nextAddr)
		if err != nil {
			return nil, err
		}
		t.nextAddr++
		if ok {
			return addrs, nil
		}
	}
}

// nameLetters may be in a DNS label (RFC 1123 section 2.1).
const nameLetters = "abcdefghijklmnopqrstuvwxyz0123456789-"

// maxLabel is the longest DNS label in bytes (RFC 1035 section 2.3.4).
const maxLabel = 63

// cleanName makes a DNS label of a host name, as a person would: its first
// label in lower case, with hyphens for spaces.
func cleanName(hostname string) string {
	label, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	label = strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(nameLetters, r):
			return r
		case r == '_' || r == ' ':
			return '-'
		}
		return -1
	}, label)
	label = strings.Trim(label[:min(len(label), maxLabel)], "-")
	if label == "" {
		return "node"
	}
	return label
}

// unusedName returns name, or with "-1", "-2", … behind it if it is taken by
// another than m.
func (t *tailnet) unusedName(name string, m *member) string {
	free := func(name string) bool { o := t.byName(name); return o == nil || o == m }
	if free(name) {
		return name
	}
	for i := 1; ; i++ {
		suffix := fmt.Sprintf("-%d", i)
		if c := strings.TrimRight(name[:min(len(name), maxLabel-len(suffix))], "-") + suffix; free(c) {
			return c
		}
	}
}
