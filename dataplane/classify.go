package dataplane

import (
	"bytes"
	"encoding/binary"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// A class is what a datagram from a UDP socket holds.
type class uint8

const (
	isData      class = iota // WireGuard transport message
	isWireGuard              // any other WireGuard message, or nothing we know
	isDisco
	isSTUN
	isRelayedDisco     // disco behind a Geneve header
	isRelayedWireGuard // WireGuard behind a Geneve header
)

const (
	dataHeader  = 32 // bytes of an empty transport message; paper section 5.4.6
	dataType    = 4  // type word of a transport message, little-endian; WG-03
	discoHeader = 38 // magic and sender's key; paths.md section 2.1
	stunHeader  = 20 // RFC 8489 section 5
	stunCookie  = 0x2112a442
)

// discoMagic begins every disco frame: "TS" and U+1F4AC.
var discoMagic = []byte("TS\xf0\x9f\x92\xac")

// transportMessage reports whether b is a WireGuard transport message. No disco,
// STUN or Geneve datagram begins with this type word, so it may be asked first.
func transportMessage(b []byte) bool {
	return len(b) >= dataHeader && binary.LittleEndian.Uint32(b) == dataType
}

// classify says what a UDP datagram is; PATH-61, whose order is significant.
func classify(b []byte) class {
	switch {
	case transportMessage(b):
		return isData
	case len(b) >= stunHeader && b[0]&0xc0 == 0 && b[1] == 1 && binary.BigEndian.Uint32(b[4:]) == stunCookie:
		return isSTUN
	case geneve(b) == geneveDisco && startsDisco(b[geneveHeader:]):
		return isRelayedDisco
	case geneve(b) == geneveWireGuard:
		return isRelayedWireGuard
	case startsDisco(b):
		return isDisco
	}
	return isWireGuard
}

func startsDisco(b []byte) bool { return len(b) >= discoHeader && bytes.HasPrefix(b, discoMagic) }

// geneve returns the protocol type of a Geneve header of version 0 without
// options, 0 when b has none.
func geneve(b []byte) uint16 {
	if len(b) < geneveHeader || b[0]&0xc0 != 0 || b[1]&0x3f != 0 || b[7] != 0 {
		return 0
	}
	return binary.BigEndian.Uint16(b[2:])
}

// geneveFields returns the network identifier and the control bit of a Geneve
// header.
func geneveFields(b []byte) (vni uint32, control bool) {
	return binary.BigEndian.Uint32(b[4:]) >> 8, b[1]&0x80 != 0
}

// udpHeader is the length of a UDP header; RFC 768.
const udpHeader = 8

// carriesDisco reports whether payload, of a UDP packet inside the tunnel, is a
// disco frame of the node with key own: a routing loop (PATH-94).
func carriesDisco(h *packet.Header, payload []byte, own *key.DiscoPublic) bool {
	if h.Proto != packet.UDP || own.IsZero() || !startsDisco(payload) {
		return false
	}
	raw := own.Raw()
	return bytes.Equal(payload[len(discoMagic):discoHeader], raw[:])
}
