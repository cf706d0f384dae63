// Package pcapng writes captures of IP packets in the format that Wireshark and
// tcpdump read.
//
// Source: draft-ietf-opsawg-pcapng-03, "PCAP Next Generation (pcapng) Capture File
// Format"; the sections named below are its.
package pcapng

import (
	"encoding/binary"
	"time"
)

// A Direction is which way a packet went.
type Direction uint32

// Directions, as the flags of a packet have them (section 4.3.1).
const (
	Inbound  Direction = 1
	Outbound Direction = 2
)

// Types of blocks (section 10.1).
const (
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6
	blockSection    = 0x0a0d0d0a
)

// Numbers in blocks.
const (
	byteOrder     = 0x1a2b3c4d // section 4.1
	versionMajor  = 1
	unknownLength = 1<<64 - 1
	linkRaw       = 101 // LINKTYPE_RAW: an IP header comes first
	snapLength    = 1 << 18
)

// Options (sections 3.5, 4.2, 4.3 and 4.6).
const (
	optionEnd        = 0
	optionName       = 2
	optionResolution = 9
	optionFlags      = 2
	optionDropped    = 5
	nanoseconds      = 9 // 10^-9 s
)

var order = binary.LittleEndian

// AppendHeader begins a capture on an interface of that name.
func AppendHeader(b []byte, name string) []byte {
	b, start := begin(b, blockSection)
	b = order.AppendUint32(b, byteOrder)
	b = order.AppendUint16(b, versionMajor)
	b = order.AppendUint16(b, 0) // minor version
	b = order.AppendUint64(b, unknownLength)
	b = end(b, start)

	b, start = begin(b, blockInterface)
	b = order.AppendUint16(b, linkRaw)
	b = order.AppendUint16(b, 0) // reserved
	b = order.AppendUint32(b, snapLength)
	b = appendOption(b, optionName, []byte(name))
	b = appendOption(b, optionResolution, []byte{nanoseconds})
	return end(appendOption(b, optionEnd, nil), start)
}

// AppendPacket appends an IP packet, which lies in pieces.
func AppendPacket(b []byte, at time.Time, d Direction, head []byte, body ...[]byte) []byte {
	length := len(head)
	for _, piece := range body {
		length += len(piece)
	}
	b, start := begin(b, blockPacket)
	b = order.AppendUint32(b, 0) // interface
	b = appendTime(b, at)
	b = order.AppendUint32(b, uint32(length)) // captured
	b = order.AppendUint32(b, uint32(length)) // of the packet
	b = append(b, head...)
	for _, piece := range body {
		b = append(b, piece...)
	}
	b = pad(b, length)
	b = order.AppendUint16(b, optionFlags)
	b = order.AppendUint16(b, 4)
	b = order.AppendUint32(b, uint32(d))
	return end(appendOption(b, optionEnd, nil), start)
}

// PacketSize returns how many bytes AppendPacket appends for a packet of that
// length, in bytes, at most.
func PacketSize(length int) int {
	const around = 12 + 20 + 8 + 4 + 3 // block, fields, flags, end of options, padding
	return length + around
}

// AppendDropped appends, at the end of a capture, how many packets it lacks.
func AppendDropped(b []byte, at time.Time, n uint64) []byte {
	b, start := begin(b, blockStatistics)
	b = order.AppendUint32(b, 0) // interface
	b = appendTime(b, at)
	b = appendOption(b, optionDropped, order.AppendUint64(nil, n))
	return end(appendOption(b, optionEnd, nil), start)
}

// begin appends the start of a block, whose length end fills in.
func begin(b []byte, kind uint32) (grown []byte, start int) {
	start = len(b)
	b = order.AppendUint32(b, kind)
	return order.AppendUint32(b, 0), start
}

// end ends the block that began at start: its length is at both ends of it.
func end(b []byte, start int) []byte {
	length := uint32(len(b) - start + 4)
	order.PutUint32(b[start+4:], length)
	return order.AppendUint32(b, length)
}

// appendTime appends nanoseconds since 1970, the upper half first.
func appendTime(b []byte, at time.Time) []byte {
	n := uint64(at.UnixNano())
	b = order.AppendUint32(b, uint32(n>>32))
	return order.AppendUint32(b, uint32(n))
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	b = order.AppendUint16(b, code)
	b = order.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...), len(value))
}

// pad fills up what is n bytes long to a multiple of 4.
func pad(b []byte, n int) []byte { return append(b, zeros[:-n&3]...) }

var zeros [3]byte
