package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum adds the Internet checksum of b (RFC 1071) to the ones' complement sum
// init and returns the sum, not inverted. A checksum field takes the inverse,
// ^Sum. All pieces of a sum but the last must have an even length.
//
// Words are added as the machine likes them, eight bytes at a time, and the
// byte order is put right at the end (RFC 1071 section 2, B and C).
func Sum(b []byte, init uint16) uint16 {
	var a0, a1, c uint64
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		a0, c = bits.Add64(a0, binary.LittleEndian.Uint64(w[0:]), 0)
		a0, c = bits.Add64(a0, binary.LittleEndian.Uint64(w[8:]), c)
		a0, c = bits.Add64(a0, binary.LittleEndian.Uint64(w[16:]), c)
		a0, c = bits.Add64(a0, binary.LittleEndian.Uint64(w[24:]), c)
		a0 += c // cannot wrap: a chain begun without carry leaves at most 2^64-2 with one
		a1, c = bits.Add64(a1, binary.LittleEndian.Uint64(w[32:]), 0)
		a1, c = bits.Add64(a1, binary.LittleEndian.Uint64(w[40:]), c)
		a1, c = bits.Add64(a1, binary.LittleEndian.Uint64(w[48:]), c)
		a1, c = bits.Add64(a1, binary.LittleEndian.Uint64(w[56:]), c)
		a1 += c
		b = b[64:]
	}
	a0, c = bits.Add64(a0, a1, 0)
	a0, c = bits.Add64(a0, sumTail(b), c)
	a0, c = bits.Add64(a0, uint64(bits.ReverseBytes16(init)), c)
	return bits.ReverseBytes16(fold(a0 + c))
}

// sumTail sums fewer than 64 bytes.
func sumTail(b []byte) uint64 {
	var a, c uint64
	for len(b) >= 8 {
		a, c = bits.Add64(a, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	var last [8]byte
	copy(last[:], b)
	a, c = bits.Add64(a, binary.LittleEndian.Uint64(last[:]), c)
	return a + c
}

// fold reduces a 64-bit ones' complement sum to 16 bits.
func fold(a uint64) uint16 {
	a = a>>32 + a&0xffffffff
	a = a>>32 + a&0xffffffff
	a = a>>16 + a&0xffff
	a = a>>16 + a&0xffff
	a = a>>16 + a&0xffff
	return uint16(a)
}

// Add returns the ones' complement sum of two sums.
func Add(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s>>16 + s&0xffff)
}

// PseudoSum returns the sum of the pseudo-header of a transport segment of
// length bytes in the IP packet pkt, whose version nibble must be 4 or 6 and
// whose base header must be present (RFC 9293 section 3.1, RFC 8200 section
// 8.1).
func PseudoSum(pkt []byte, proto Proto, length int) uint16 {
	s := uint32(proto) + uint32(length>>16) + uint32(length&0xffff)
	init := Add(uint16(s), uint16(s>>16))
	if pkt[0]>>4 == 6 {
		return Sum(pkt[8:40], init)
	}
	return Sum(pkt[12:20], init)
}

// SetIPv4Checksum forms the header checksum of the IPv4 packet pkt anew; hl is
// the length of its header in bytes.
func SetIPv4Checksum(pkt []byte, hl int) {
	binary.BigEndian.PutUint16(pkt[10:], 0)
	binary.BigEndian.PutUint16(pkt[10:], ^Sum(pkt[:hl], 0))
}

// checksumOffset returns where the checksum field lies in a transport header,
// for protocols whose checksum covers the pseudo-header.
func (h *Header) checksumOffset() (off int, ok bool) {
	switch h.Proto {
	case TCP:
		return 16, true
	case UDP, DCCP:
		return 6, true
	case ICMPv6:
		return 2, h.Version == 6
	}
	return 0, false
}

// SetChecksum forms the transport checksum of pkt, which h was parsed from,
// whatever its field held. It reports false when the packet is a fragment or of
// a protocol without such a checksum; pkt is unchanged then.
func (h *Header) SetChecksum(pkt []byte) bool {
	off, ok := h.checksumOffset()
	t := pkt[h.Transport:h.Length]
	if !ok || h.fragmented(pkt) || len(t) < off+2 {
		return false
	}
	binary.BigEndian.PutUint16(t[off:], 0)
	sum := ^Sum(t, PseudoSum(pkt, h.Proto, len(t)))
	if sum == 0 && h.Proto == UDP {
		sum = 0xffff // zero means "none"; RFC 768
	}
	binary.BigEndian.PutUint16(t[off:], sum)
	return true
}

// fragmented reports whether pkt, which h was parsed from, is a part of a
// packet.
func (h *Header) fragmented(pkt []byte) bool {
	if h.Version == 4 {
		return binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0
	}
	return pkt[6] == nextFragment
}

// RewriteSrc puts to in place of the source address of pkt, which h was parsed
// from, and updates h and the checksums by difference (SVC-33). It reports
// false, and changes nothing, when to is of the other family.
func (h *Header) RewriteSrc(pkt []byte, to netip.Addr) bool {
	if !h.rewrite(pkt, 0, h.Src.Addr(), to) {
		return false
	}
	h.Src = netip.AddrPortFrom(to, h.Src.Port())
	return true
}

// RewriteDst is RewriteSrc for the destination address.
func (h *Header) RewriteDst(pkt []byte, to netip.Addr) bool {
	if !h.rewrite(pkt, 1, h.Dst.Addr(), to) {
		return false
	}
	h.Dst = netip.AddrPortFrom(to, h.Dst.Port())
	return true
}

// rewrite replaces the n-th address of pkt (0 source, 1 destination).
func (h *Header) rewrite(pkt []byte, n int, from, to netip.Addr) bool {
	var field []byte
	switch {
	case h.Version == 4 && from.Is4() && to.Is4():
		field = pkt[12+4*n:][:4]
	case h.Version == 6 && from.Is6() && to.Is6():
		field = pkt[8+16*n:][:16]
	default:
		return false
	}
	// RFC 1624 section 3, equation 3: HC' = ~(~HC + ~m + m').
	delta := ^Sum(field, 0)
	if to.Is4() {
		b := to.As4()
		copy(field, b[:])
	} else {
		b := to.As16()
		copy(field, b[:])
	}
	delta = Sum(field, delta)
	if h.Version == 4 {
		adjust(pkt[10:], delta)
	}
	h.adjustTransport(pkt, delta)
	return true
}

// adjustTransport adds delta to the transport checksum of pkt where it covers
// addresses. A later fragment has no transport header and is left alone.
func (h *Header) adjustTransport(pkt []byte, delta uint16) {
	off, ok := h.checksumOffset()
	if !ok || h.Length-h.Transport < off+2 {
		return
	}
	field := pkt[h.Transport+off:]
	if h.Proto != UDP {
		adjust(field, delta)
		return
	}
	if field[0]|field[1] == 0 {
		return // the sender formed none; RFC 768
	}
	adjust(field, delta)
	if field[0]|field[1] == 0 {
		field[0], field[1] = 0xff, 0xff
	}
}

// adjust adds delta to the sum whose inverse is stored at field.
func adjust(field []byte, delta uint16) {
	sum := Add(^binary.BigEndian.Uint16(field), delta)
	binary.BigEndian.PutUint16(field, ^sum)
}
