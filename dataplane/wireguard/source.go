package wireguard

import (
	"encoding/binary"
	"net/netip"
)

// First bytes of a source as a cookie is made for it (WG-22).
const (
	sourceIPv4  = 0x04
	sourceRelay = 0x05
	sourceIPv6  = 0x06
	sourceDERP  = 0x0d
)

// maxSourceBytes is the longest form: DERP, or a peer relay over IPv6.
const maxSourceBytes = 1 + 2 + 32

// isDERP reports whether the source is a relay's client, whose key the relay has
// checked.
func (s *Source) isDERP() bool { return s.Region != 0 }

// appendCookie appends the bytes that stand for s in a cookie: only a host able
// to receive there can use it (WG-22).
func (s *Source) appendCookie(b []byte) []byte {
	switch {
	case s.isDERP():
		k := s.Key.Raw()
		b = binary.BigEndian.AppendUint16(append(b, sourceDERP), s.Region)
		return append(b, k[:]...)
	case s.VNI != 0:
		b = appendUDP(append(b, sourceRelay), s.Addr)
		return append(b, byte(s.VNI>>16), byte(s.VNI>>8), byte(s.VNI))
	}
	return appendUDP(b, s.Addr)
}

func appendUDP(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		four := ip.As4()
		b = append(append(b, sourceIPv4), four[:]...)
	} else {
		six := ip.As16()
		b = append(append(b, sourceIPv6), six[:]...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// appendRate appends the bytes by which messages from s are counted together:
// an IPv4 address, an IPv6 network of 64 bits, a relay's address and VNI, a DERP
// client's key (WG-22).
func (s *Source) appendRate(b []byte) []byte {
	ip := s.Addr.Addr().Unmap()
	switch {
	case s.isDERP():
		k := s.Key.Raw()
		return append(append(b, sourceDERP), k[:]...)
	case s.VNI != 0:
		six := ip.As16()
		b = append(append(b, sourceRelay), six[:]...)
		return binary.BigEndian.AppendUint32(b, s.VNI)
	case ip.Is4():
		four := ip.As4()
		return append(append(b, sourceIPv4), four[:]...)
	}
	six := ip.As16()
	return append(append(b, sourceIPv6), six[:8]...)
}
