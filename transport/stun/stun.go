// Package stun is the part of STUN that a tailnet uses: the Binding request a
// node sends to learn its public address, the answer, and the server that
// gives it.
//
// It owns no socket; which request an answer belongs to is the caller's to
// know. Source: RFC 5389, doc/protocol/netcheck.md section 2 (NC-01..NC-11).
package stun

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// A TxID ties an answer to its request.
type TxID [12]byte

// NewTxID returns a random transaction id.
func NewTxID() (id TxID) {
	rand.Read(id[:])
	return id
}

// Layout of a message (RFC 5389 section 6).
const (
	headerSize = 20         // type, length, cookie, transaction id
	cookie     = 0x2112a442 // bytes 4 to 7 of every message

	typeRequest = 0x0001 // Binding Request
	typeSuccess = 0x0101 // Binding Success Response

	attrMapped      = 0x0001
	attrXORMapped   = 0x0020
	attrXORMapped80 = 0x8020 // the same from servers of the draft
	attrSoftware    = 0x8022
	attrFingerprint = 0x8028

	familyIPv4 = 1
	familyIPv6 = 2
)

// software names the client. Servers of a tailnet answer nobody else (NC-08).
const software = "tailnode"

// fingerprintXOR is added to the CRC so that it differs from that of other
// protocols (RFC 5389 section 15.5).
const fingerprintXOR = 0x5354554e

// RequestSize is the length of a request in bytes.
const RequestSize = 40

// fingerprintSize is the length of the FINGERPRINT attribute.
const fingerprintSize = 8

// Errors of parsing that tell kinds of messages apart.
var (
	ErrNotSTUN    = errors.New("stun: not a STUN message")
	ErrNotRequest = errors.New("stun: not a Binding request of a tailnet node")
	ErrNotSuccess = errors.New("stun: not a Binding success response")
)

// Is reports whether a datagram is STUN and neither WireGuard nor disco, which
// share the socket (NC-03).
func Is(b []byte) bool {
	return len(b) >= headerSize && b[0]&0xc0 == 0 && binary.BigEndian.Uint32(b[4:]) == cookie
}

// AppendRequest appends a Binding request: SOFTWARE first, FINGERPRINT last
// (NC-01).
func AppendRequest(b []byte, id TxID) []byte {
	start := len(b)
	b = appendHeader(b, typeRequest, RequestSize-headerSize, id)
	b = appendAttr(b, attrSoftware, []byte(software))
	return appendAttr(b, attrFingerprint, binary.BigEndian.AppendUint32(nil, fingerprint(b[start:])))
}

// AppendResponse appends the answer to a request that came from addr (NC-09).
// An IPv4-mapped address is answered as IPv4 (NC-10).
func AppendResponse(b []byte, id TxID, addr netip.AddrPort) []byte {
	ip := addr.Addr().Unmap()
	family, raw := byte(familyIPv4), ip.AsSlice()
	if ip.Is6() {
		family = familyIPv6
	}
	xorAddr(raw, id)
	b = appendHeader(b, typeSuccess, 8+len(raw), id)
	b = binary.BigEndian.AppendUint16(b, attrXORMapped)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(raw)))
	b = append(b, 0, family)
	b = binary.BigEndian.AppendUint16(b, addr.Port()^cookie>>16)
	return append(b, raw...)
}

func appendHeader(b []byte, typ, length int, id TxID) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = binary.BigEndian.AppendUint32(b, cookie)
	return append(b, id[:]...)
}

// appendAttr appends an attribute whose value needs no padding.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

func fingerprint(b []byte) uint32 { return crc32.ChecksumIEEE(b) ^ fingerprintXOR }

// xorAddr hides or uncovers an address from middleboxes that rewrite what looks
// like one (RFC 5389 section 15.2).
func xorAddr(raw []byte, id TxID) {
	var mask [16]byte
	binary.BigEndian.PutUint32(mask[:], cookie)
	copy(mask[4:], id[:])
	for i := range raw {
		raw[i] ^= mask[i]
	}
}

// ParseRequest reads a Binding request of a tailnet node. Anything else is an
// error, so that the server is of no use to reflect traffic (NC-08).
func ParseRequest(b []byte) (TxID, error) {
	id, typ, attrs, err := parseHeader(b)
	if err != nil {
		return TxID{}, err
	}
	if typ != typeRequest {
		return TxID{}, ErrNotRequest
	}
	named, sealed := false, false
	for len(attrs) > 0 {
		a, rest, err := nextAttr(attrs)
		if err != nil {
			return TxID{}, err
		}
		switch a.typ {
		case attrSoftware:
			named = named || string(a.value) == software
		case attrFingerprint:
			before := b[:headerSize+(len(b[headerSize:])-len(attrs))]
			sealed = len(rest) == 0 && len(a.value) == 4 && binary.BigEndian.Uint32(a.value) == fingerprint(before)
		}
		attrs = rest
	}
	if !named || !sealed {
		return TxID{}, ErrNotRequest
	}
	return id, nil
}

// ParseResponse reads a Binding success response: the transaction it belongs to
// and the address that the server saw, unmapped (NC-04..NC-06).
func ParseResponse(b []byte) (TxID, netip.AddrPort, error) {
	id, typ, attrs, err := parseHeader(b)
	if err != nil {
		return TxID{}, netip.AddrPort{}, err
	}
	if typ != typeSuccess {
		return id, netip.AddrPort{}, ErrNotSuccess
	}
	var xored, plain netip.AddrPort
	for len(attrs) > 0 {
		a, rest, err := nextAttr(attrs)
		if err != nil {
			return id, netip.AddrPort{}, err
		}
		switch a.typ {
		case attrXORMapped, attrXORMapped80:
			xored, err = parseAddr(a.value, id, true)
		case attrMapped:
			plain, err = parseAddr(a.value, id, false)
		}
		if err != nil {
			return id, netip.AddrPort{}, err
		}
		attrs = rest
	}
	switch {
	case xored.IsValid():
		return id, xored, nil
	case plain.IsValid():
		return id, plain, nil
	}
	return id, netip.AddrPort{}, errors.New("stun: response without a mapped address")
}

// parseHeader splits a message; what follows its length is cut off.
func parseHeader(b []byte) (id TxID, typ uint16, attrs []byte, err error) {
	if !Is(b) {
		return id, 0, nil, ErrNotSTUN
	}
	typ = binary.BigEndian.Uint16(b)
	n := int(binary.BigEndian.Uint16(b[2:]))
	if attrs = b[headerSize:]; n > len(attrs) {
		return id, 0, nil, fmt.Errorf("stun: message says %d bytes of attributes but holds %d", n, len(attrs))
	}
	return TxID(b[8:headerSize]), typ, attrs[:n], nil
}

// An attr is one attribute; value aliases the message.
type attr struct {
	typ   uint16
	value []byte
}

// nextAttr splits the first attribute and its padding off b.
func nextAttr(b []byte) (a attr, rest []byte, err error) {
	if len(b) < 4 {
		return a, nil, fmt.Errorf("stun: attribute header of %d bytes, want 4", len(b))
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	padded := (n + 3) &^ 3
	if padded > len(b)-4 {
		return a, nil, fmt.Errorf("stun: attribute of %d bytes where %d are left", padded, len(b)-4)
	}
	return attr{binary.BigEndian.Uint16(b), b[4 : 4+n]}, b[4+padded:], nil
}

// parseAddr reads a MAPPED-ADDRESS or XOR-MAPPED-ADDRESS value; bytes after
// the address are ignored.
func parseAddr(v []byte, id TxID, xored bool) (netip.AddrPort, error) {
	if len(v) < 4 {
		return netip.AddrPort{}, fmt.Errorf("stun: mapped address of %d bytes", len(v))
	}
	size := 0
	switch v[1] {
	case familyIPv4:
		size = 4
	case familyIPv6:
		size = 16
	default:
		return netip.AddrPort{}, fmt.Errorf("stun: mapped address of family %d, want 1 or 2", v[1])
	}
	if len(v) < 4+size {
		return netip.AddrPort{}, fmt.Errorf("stun: mapped address of %d bytes, want %d", len(v), 4+size)
	}
	port := binary.BigEndian.Uint16(v[2:])
	var raw [16]byte
	copy(raw[:], v[4:4+size])
	if xored {
		port ^= cookie >> 16
		xorAddr(raw[:size], id)
	}
	addr, _ := netip.AddrFromSlice(raw[:size])
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}
