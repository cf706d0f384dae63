package portmap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Versions, opcodes and sizes of PCP (RFC 6887 sections 7, 11 and 14, PATH-101).
const (
	pcpVersion    = 2
	pcpOpAnnounce = 0
	pcpOpMap      = 1
	pcpHeaderSize = 24
	pcpMapSize    = 60
	pcpMaxSize    = 1100 // RFC 6887 section 7: no message is longer
	protocolUDP   = 17   // IANA
)

// A pcpResult is the result code of a PCP answer (RFC 6887 section 7.4).
type pcpResult byte

const (
	pcpSuccess            pcpResult = 0
	pcpUnsupportedVersion pcpResult = 1
	pcpNotAuthorized      pcpResult = 2
	pcpNetworkFailure     pcpResult = 7
	pcpNoResources        pcpResult = 8
	pcpUserExceededQuota  pcpResult = 10
	pcpCannotProvide      pcpResult = 11
	pcpAddressMismatch    pcpResult = 12
)

// Error says what the gateway meant.
func (r pcpResult) Error() string {
	switch r {
	case pcpSuccess:
		return "PCP: success"
	case pcpUnsupportedVersion:
		return "PCP: gateway does not speak version 2"
	case pcpNotAuthorized:
		return "PCP: gateway refuses; port mapping may be switched off in its settings"
	case pcpNetworkFailure:
		return "PCP: gateway has no public address"
	case pcpNoResources:
		return "PCP: gateway is out of resources"
	case pcpUserExceededQuota:
		return "PCP: this host has all the mappings the gateway allows it"
	case pcpCannotProvide:
		return "PCP: gateway cannot provide the wanted port"
	case pcpAddressMismatch:
		return "PCP: another NAT is between this host and the gateway"
	}
	return fmt.Sprintf("PCP: result %d", byte(r))
}

// A nonce ties the answers, renewals and deletion of one mapping to its
// creation (RFC 6887 section 11.2, PATH-102).
type nonce [12]byte

// appendPCPHeader appends the header that all requests begin with.
func appendPCPHeader(b []byte, opcode byte, lifetime uint32, client netip.Addr) []byte {
	b = append(b, pcpVersion, opcode, 0, 0)
	b = binary.BigEndian.AppendUint32(b, lifetime)
	ip := client.As16() // IPv4 as ::ffff:a.b.c.d
	return append(b, ip[:]...)
}

// appendAnnounce appends a request that a PCP server only has to answer.
func appendAnnounce(b []byte, client netip.Addr) []byte {
	return appendPCPHeader(b, pcpOpAnnounce, 0, client)
}

// A pcpMapQuery asks for a UDP port of the gateway.
type pcpMapQuery struct {
	client   netip.Addr // of this host; a server compares it with the packet's source
	nonce    nonce
	internal uint16         // of this host
	wanted   netip.AddrPort // of the gateway; not valid leaves the choice to it
	lifetime uint32         // seconds; 0 deletes
}

func (q pcpMapQuery) append(b []byte) []byte {
	b = appendPCPHeader(b, pcpOpMap, q.lifetime, q.client)
	b = append(b, q.nonce[:]...)
	b = append(b, protocolUDP, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, q.internal)
	b = binary.BigEndian.AppendUint16(b, q.wanted.Port())
	ip := netip.IPv4Unspecified().As16() // RFC 6887 section 11.1: any address
	if q.wanted.IsValid() {
		ip = q.wanted.Addr().As16()
	}
	return append(b, ip[:]...)
}

// A pcpAnswer is what a server says. The fields of a mapping are set for
// pcpOpMap with pcpSuccess.
type pcpAnswer struct {
	opcode   byte // without the answer bit
	result   pcpResult
	lifetime uint32 // seconds; granted, or how long the refusal stands
	epoch    uint32 // seconds since the server lost its mappings; 0 in short refusals

	nonce    nonce
	protocol byte
	internal uint16
	external netip.AddrPort // unmapped; not valid when the server has none
}

// parsePCP parses an answer. A refusal is no error. That of a NAT-PMP gateway
// may be as short as its own header.
func parsePCP(b []byte) (pcpAnswer, error) {
	if len(b) < 4 || len(b) > pcpMaxSize {
		return pcpAnswer{}, fmt.Errorf("PCP answer of %d bytes, want 4 to %d", len(b), pcpMaxSize)
	}
	if b[0] != pcpVersion || b[1]&answerBit == 0 {
		return pcpAnswer{}, fmt.Errorf("not a PCP answer: version %d, opcode %#02x", b[0], b[1])
	}
	a := pcpAnswer{opcode: b[1] &^ answerBit, result: pcpResult(b[3])}
	if len(b) < pcpHeaderSize {
		if a.result == pcpSuccess {
			return pcpAnswer{}, fmt.Errorf("PCP answer of %d bytes, want %d or more", len(b), pcpHeaderSize)
		}
		return a, nil
	}
	a.lifetime = binary.BigEndian.Uint32(b[4:])
	a.epoch = binary.BigEndian.Uint32(b[8:])
	switch {
	case a.opcode == pcpOpMap && len(b) >= pcpMapSize:
		a.parseMap(b[pcpHeaderSize:])
	case a.opcode == pcpOpMap && a.result == pcpSuccess:
		return pcpAnswer{}, fmt.Errorf("PCP map answer of %d bytes, want %d or more", len(b), pcpMapSize)
	case a.opcode != pcpOpMap && a.opcode != pcpOpAnnounce:
		return pcpAnswer{}, fmt.Errorf("PCP answer to opcode %d, which is never asked", a.opcode)
	}
	return a, nil
}

// parseMap parses what follows the header (RFC 6887 figure 10).
func (a *pcpAnswer) parseMap(b []byte) {
	a.nonce = nonce(b[:12])
	a.protocol = b[12]
	a.internal = binary.BigEndian.Uint16(b[16:])
	port := binary.BigEndian.Uint16(b[18:])
	if ip := netip.AddrFrom16([16]byte(b[20:36])).Unmap(); usablePublic(ip) && port != 0 {
		a.external = netip.AddrPortFrom(ip, port)
	}
}
