package packetfilter

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// A point is an address of one family as a number.
type point[T any] interface {
	comparable
	less(T) bool
	follows(T) bool // it is the other plus one
	next() T        // plus one; the last one has none
	prev() T        // minus one; the first one has none

	// port returns the number p as a point, so that ports are indexed as
	// addresses are.
	port(p uint16) T
}

// A v4 is an IPv4 address.
type v4 uint32

func (a v4) less(b v4) bool    { return a < b }
func (a v4) follows(b v4) bool { return a != 0 && a-1 == b }
func (a v4) next() v4          { return a + 1 }
func (a v4) prev() v4          { return a - 1 }
func (v4) port(p uint16) v4    { return v4(p) }

// A v6 is an IPv6 address.
type v6 struct{ hi, lo uint64 }

func (a v6) less(b v6) bool    { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }
func (a v6) follows(b v6) bool { return a != v6{} && a.prev() == b }

func (a v6) next() v6 {
	if a.lo++; a.lo == 0 {
		a.hi++
	}
	return a
}

func (a v6) prev() v6 {
	if a.lo == 0 {
		a.hi--
	}
	a.lo--
	return a
}

func (v6) port(p uint16) v6 { return v6{lo: uint64(p)} }

func to4(a netip.Addr) v4 {
	b := a.As4()
	return v4(binary.BigEndian.Uint32(b[:]))
}

func to6(a netip.Addr) v6 {
	b := a.As16()
	return v6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// A span is the addresses from first to last, both included.
type span[T point[T]] struct{ first, last T }

// Spans are sorted, and neither overlap nor touch.
type spans[T point[T]] []span[T]

// contains reports whether a is in one of the spans.
func (s spans[T]) contains(a T) bool {
	lo, hi := 0, len(s)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s[mid].last.less(a) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(s) && !a.less(s[lo].first)
}

// overlaps reports whether any address is in a span of both.
func (s spans[T]) overlaps(o spans[T]) bool {
	for len(s) > 0 && len(o) > 0 {
		switch {
		case s[0].last.less(o[0].first):
			s = s[1:]
		case o[0].last.less(s[0].first):
			o = o[1:]
		default:
			return true
		}
	}
	return false
}

// normalised sorts s and joins what overlaps or touches.
func (s spans[T]) normalised() spans[T] {
	sort.Slice(s, func(i, j int) bool { return s[i].first.less(s[j].first) })
	out := s[:0]
	for _, x := range s {
		if n := len(out); n > 0 && (!out[n-1].last.less(x.first) || x.first.follows(out[n-1].last)) {
			if out[n-1].last.less(x.last) {
				out[n-1].last = x.last
			}
			continue
		}
		out = append(out, x)
	}
	return slices.Clip(out)
}

// minus returns the addresses of s that are not in o; both are normalised.
func (s spans[T]) minus(o spans[T]) spans[T] {
	var out spans[T]
	for _, x := range s {
		whole := true
		for _, cut := range o {
			if cut.last.less(x.first) || x.last.less(cut.first) {
				continue
			}
			if x.first.less(cut.first) {
				out = append(out, span[T]{x.first, cut.first.prev()})
			}
			if !cut.last.less(x.last) {
				whole = false
				break
			}
			x.first = cut.last.next()
		}
		if whole {
			out = append(out, x)
		}
	}
	return out
}

// A set is a set of addresses of both families. Normalise it after adding.
type set struct {
	v4 spans[v4]
	v6 spans[v6]
}

// addPrefix adds the addresses of p; an invalid prefix has none.
func (s *set) addPrefix(p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	p = p.Masked()
	if p.Addr().Is4() {
		first := to4(p.Addr())
		s.v4 = append(s.v4, span[v4]{first, first | v4(math.MaxUint32>>p.Bits())})
		return
	}
	first := to6(p.Addr())
	last := v6{first.hi | hostMask(p.Bits()), first.lo | hostMask(p.Bits()-64)}
	s.v6 = append(s.v6, span[v6]{first, last})
}

// hostMask returns the host part of a 64-bit word of which bits, from below 0 to
// above 64, belong to the network.
func hostMask(bits int) uint64 {
	switch {
	case bits <= 0:
		return math.MaxUint64
	case bits >= 64:
		return 0
	}
	return math.MaxUint64 >> bits
}

func (s *set) addAddr(a netip.Addr) { s.addPrefix(netip.PrefixFrom(a, a.BitLen())) }

func (s *set) add(o set) {
	s.v4 = append(s.v4, o.v4...)
	s.v6 = append(s.v6, o.v6...)
}

func (s *set) normalise() {
	s.v4 = s.v4.normalised()
	s.v6 = s.v6.normalised()
}

func (s *set) minus(o set) set { return set{s.v4.minus(o.v4), s.v6.minus(o.v6)} }

func (s *set) overlaps(o set) bool { return s.v4.overlaps(o.v4) || s.v6.overlaps(o.v6) }

// contains reports whether a is in the set. A v4-mapped address is an IPv6
// address here.
func (s *set) contains(a netip.Addr) bool {
	if a.Is4() {
		return s.v4.contains(to4(a))
	}
	return a.Is6() && s.v6.contains(to6(a))
}

// prefixSet returns the set of the addresses in the prefixes.
func prefixSet(ps ...netip.Prefix) set {
	var s set
	for _, p := range ps {
		s.addPrefix(p)
	}
	s.normalise()
	return s
}

// parseSet parses one address entry of a rule: "*", an address, a CIDR without
// host bits, or an inclusive range a-b (SVC-11).
func parseSet(text string) (s set, err error) {
	if text == "*" {
		return prefixSet(all4, all6), nil
	}
	if strings.Contains(text, "/") {
		p, err := parsePrefix(text)
		if err != nil {
			return set{}, err
		}
		s.addPrefix(p)
		return s, nil
	}
	lo, hi, isRange := strings.Cut(text, "-")
	first, err := parseAddr(lo)
	if err != nil {
		return set{}, fmt.Errorf("%q is no address, CIDR, range or *: %w", text, err)
	}
	if !isRange {
		s.addAddr(first)
		return s, nil
	}
	last, err := parseAddr(hi)
	if err != nil {
		return set{}, fmt.Errorf("%q is no range: %w", text, err)
	}
	return rangeSet(text, first, last)
}

var (
	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is no CIDR: %w", text, err)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is an IPv4-mapped CIDR: write it as IPv4", text)
	case p != p.Masked():
		return p, fmt.Errorf("%q has host bits set: want %v", text, p.Masked())
	}
	return p, nil
}

// parseAddr parses an address without zone and unmaps it (SVC-03).
func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err == nil && a.Zone() != "" {
		err = fmt.Errorf("%q has a zone", text)
	}
	return a.Unmap(), err
}

func rangeSet(text string, first, last netip.Addr) (s set, err error) {
	switch {
	case first.BitLen() != last.BitLen():
		return s, fmt.Errorf("%q is a range over two address families", text)
	case last.Less(first):
		return s, fmt.Errorf("%q is a range that ends before it begins", text)
	case first.Is4():
		s.v4 = spans[v4]{{to4(first), to4(last)}}
	default:
		s.v6 = spans[v6]{{to6(first), to6(last)}}
	}
	return s, nil
}
