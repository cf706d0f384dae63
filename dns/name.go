package dns

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Names in this package are in lower case and have no dot at either end; the
// root is the empty name.

const (
	maxName  = 253 // bytes of a name without its last dot; RFC 1035 section 2.3.4
	maxLabel = 63  // bytes; RFC 1035 section 2.3.4
)

// canonical brings a name of a netmap or a caller into the form of this package.
// It reports false for what is no name.
func canonical(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "."), "."))
	if len(name) > maxName {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > maxLabel || label == "" && name != "" {
			return "", false
		}
	}
	return name, true
}

// questionName brings the name of a question into the form of this package. A
// name already in lower case costs one allocation: the string.
func questionName(n *dnsmessage.Name) string {
	b := n.Data[:n.Length]
	if len(b) > 0 && b[len(b)-1] == '.' {
		b = b[:len(b)-1]
	}
	var lower [len(n.Data)]byte
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return string(lower[:len(b)])
}

// under reports whether name is zone or below it. All is under the root.
func under(name, zone string) bool {
	if zone == "" || name == zone {
		return true
	}
	return len(name) > len(zone) && name[len(name)-len(zone)-1] == '.' && strings.HasSuffix(name, zone)
}

// parent returns the name without its first label.
func parent(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	return rest
}

// ends of the names that map addresses back to names.
const (
	reverse4 = ".in-addr.arpa" // RFC 1035 section 3.5
	reverse6 = ".ip6.arpa"     // RFC 3596 section 2.5
)

// addrOfReverse returns the address that a reverse name stands for.
func addrOfReverse(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, reverse4); ok {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() {
			return netip.Addr{}, false
		}
		b := a.As4()
		slices.Reverse(b[:])
		return netip.AddrFrom4(b), true
	}
	if s, ok := strings.CutSuffix(name, reverse6); ok {
		return addrOfNibbles(s)
	}
	return netip.Addr{}, false
}

// addrOfNibbles parses the 32 hexadecimal digits of an IPv6 address, last first.
func addrOfNibbles(s string) (netip.Addr, bool) {
	var digits [32]byte
	if len(s) != 2*len(digits)-1 {
		return netip.Addr{}, false
	}
	for i := range len(s) {
		if dot := i%2 == 1; dot != (s[i] == '.') {
			return netip.Addr{}, false
		} else if !dot {
			digits[len(digits)-1-i/2] = s[i]
		}
	}
	var a [16]byte
	if _, err := hex.Decode(a[:], digits[:]); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(a), true
}

// Special prefixes of section 1 of node-services.md.
var (
	via6  = [8]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0x0b, 0x1a}                                // 4via6 block, /64
	in4to = [13]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0xab, 0x12, 0x48, 0x43, 0xcd, 0x96, 0x62} // 4-to-6 block, /104
)

// addrOfVia returns the address of a 4via6 name (SVC-70): the first label is
// a-b-c-d-via-SITE, alone or under one of the domains of such names.
func addrOfVia(name string) (netip.Addr, bool) {
	label, domain, _ := strings.Cut(name, ".")
	if domain != "" && !strings.HasSuffix(domain, ".ts.net") && !strings.HasSuffix(domain, ".tailscale.net") {
		return netip.Addr{}, false
	}
	dashed, siteText, ok := strings.Cut(label, "-via-")
	if !ok {
		return netip.Addr{}, false
	}
	site, err := strconv.ParseUint(siteText, 0, 32)
	if err != nil {
		return netip.Addr{}, false
	}
	v4, err := netip.ParseAddr(strings.ReplaceAll(dashed, "-", "."))
	if err != nil || !v4.Is4() {
		return netip.Addr{}, false
	}
	var a [16]byte
	copy(a[:], via6[:])
	a[8], a[9], a[10], a[11] = byte(site>>24), byte(site>>16), byte(site>>8), byte(site)
	b := v4.As4()
	copy(a[12:], b[:])
	return netip.AddrFrom16(a), true
}

// from4to6 returns the IPv4 address of a node that an address of the 4-to-6 block
// stands for: its first byte is that of all nodes.
func from4to6(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	if !a.Is6() || [13]byte(b[:13]) != in4to {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte{100, b[13], b[14], b[15]}), true
}
