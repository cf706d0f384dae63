package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// serverPort is where a gateway answers NAT-PMP and PCP (RFC 6886 section 3,
// RFC 6887 section 19).
const serverPort = 5351

// Versions, opcodes and sizes of NAT-PMP (RFC 6886 section 3, PATH-100).
const (
	pmpVersion      = 0
	pmpOpAddress    = 0
	pmpOpMapUDP     = 1
	answerBit       = 0x80 // of an opcode, in NAT-PMP and in PCP
	pmpHeaderSize   = 8
	pmpAddressSize  = 12
	pmpMapSize      = 16
	pmpMapQuerySize = 12
)

// A pmpResult is the result code of a NAT-PMP answer (RFC 6886 section 3.5).
type pmpResult uint16

const (
	pmpSuccess            pmpResult = 0
	pmpUnsupportedVersion pmpResult = 1
	pmpRefused            pmpResult = 2
	pmpNetworkFailure     pmpResult = 3
	pmpOutOfResources     pmpResult = 4
	pmpUnsupportedOpcode  pmpResult = 5
)

// Error says what the gateway meant.
func (r pmpResult) Error() string {
	switch r {
	case pmpSuccess:
		return "NAT-PMP: success"
	case pmpUnsupportedVersion:
		return "NAT-PMP: gateway does not speak version 0"
	case pmpRefused:
		return "NAT-PMP: gateway refuses; port mapping may be switched off in its settings"
	case pmpNetworkFailure:
		return "NAT-PMP: gateway has no public address"
	case pmpOutOfResources:
		return "NAT-PMP: gateway has no free port"
	case pmpUnsupportedOpcode:
		return "NAT-PMP: gateway does not know the request"
	}
	return fmt.Sprintf("NAT-PMP: result %d", uint16(r))
}

// appendAddressQuery appends a request for the gateway's public address.
func appendAddressQuery(b []byte) []byte { return append(b, pmpVersion, pmpOpAddress) }

// A pmpMapQuery asks for a UDP port of the gateway.
type pmpMapQuery struct {
	internal uint16 // of this host
	wanted   uint16 // of the gateway; 0 leaves the choice to it
	lifetime uint32 // seconds; 0 deletes
}

func (q pmpMapQuery) append(b []byte) []byte {
	b = append(b, pmpVersion, pmpOpMapUDP, 0, 0)
	b = binary.BigEndian.AppendUint16(b, q.internal)
	b = binary.BigEndian.AppendUint16(b, q.wanted)
	return binary.BigEndian.AppendUint32(b, q.lifetime)
}

// A pmpAnswer is what a gateway says. Beside header fields only those of its
// opcode are set, and they only if result is pmpSuccess.
type pmpAnswer struct {
	opcode byte // without the answer bit
	result pmpResult
	epoch  uint32 // seconds since the gateway lost its mappings; 0 in short refusals

	public netip.Addr // pmpOpAddress; not valid when the gateway has none

	internal, external uint16 // pmpOpMapUDP
	lifetime           uint32 // pmpOpMapUDP; seconds granted
}

// parsePMP parses an answer. An answer that says why there is no result is no
// error: it may be shorter than one with a result.
func parsePMP(b []byte) (pmpAnswer, error) {
	if len(b) < 4 {
		return pmpAnswer{}, fmt.Errorf("NAT-PMP answer of %d bytes, want 4 or more", len(b))
	}
	if b[0] != pmpVersion || b[1]&answerBit == 0 {
		return pmpAnswer{}, fmt.Errorf("not a NAT-PMP answer: version %d, opcode %#02x", b[0], b[1])
	}
	a := pmpAnswer{opcode: b[1] &^ answerBit, result: pmpResult(binary.BigEndian.Uint16(b[2:]))}
	if len(b) >= pmpHeaderSize {
		a.epoch = binary.BigEndian.Uint32(b[4:])
	}
	if a.result != pmpSuccess {
		return a, nil
	}
	switch a.opcode {
	case pmpOpAddress:
		return a, a.parseAddress(b)
	case pmpOpMapUDP:
		return a, a.parseMap(b)
	}
	return pmpAnswer{}, fmt.Errorf("NAT-PMP answer to opcode %d, which is never asked", a.opcode)
}

func (a *pmpAnswer) parseAddress(b []byte) error {
	if len(b) < pmpAddressSize {
		return fmt.Errorf("NAT-PMP address answer of %d bytes, want %d", len(b), pmpAddressSize)
	}
	// 0.0.0.0 is "no address yet" (PATH-100).
	if ip := netip.AddrFrom4([4]byte(b[8:12])); usablePublic(ip) {
		a.public = ip
	}
	return nil
}

func (a *pmpAnswer) parseMap(b []byte) error {
	if len(b) < pmpMapSize {
		return fmt.Errorf("NAT-PMP map answer of %d bytes, want %d", len(b), pmpMapSize)
	}
	a.internal = binary.BigEndian.Uint16(b[8:])
	a.external = binary.BigEndian.Uint16(b[10:])
	a.lifetime = binary.BigEndian.Uint32(b[12:])
	return nil
}

// usablePublic reports whether a gateway may claim to have this address.
func usablePublic(ip netip.Addr) bool {
	return ip.Is4() && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() &&
		!ip.IsLinkLocalUnicast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

var errNoPublicAddress = errors.New("gateway has no public address")
