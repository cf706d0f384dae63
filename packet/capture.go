package packet

import (
	"encoding/binary"
	"time"
)

// A Capture is bytes of a capture of IP packets, in the format that Wireshark and
// tcpdump read. It begins with Begin; what is appended to it may go to a file bit by
// bit.
//
// Source: draft-ietf-opsawg-pcapng-03, "PCAP Next Generation (pcapng) Capture File
// Format"; the sections named below are its.
type Capture []byte

// A Way is which way a captured packet went, as the flags of a packet have it
// (section 4.3.1).
type Way uint32

// Ways.
const (
	Received Way = 1
	Sent     Way = 2
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
	blockOrder    = 0x1a2b3c4d // of bytes; section 4.1
	blockVersion  = 1
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
	inNanoseconds    = 9 // 10^-9 s
)

// Begin begins a capture on an interface of that name.
func (c *Capture) Begin(name string) {
	start := c.begin(blockSection)
	c.add32(blockOrder)
	c.add16(blockVersion)
	c.add16(0) // minor version
	c.add64(unknownLength)
	c.end(start)

	start = c.begin(blockInterface)
	c.add16(linkRaw)
	c.add16(0) // reserved
	c.add32(snapLength)
	c.addOption(optionName, []byte(name))
	c.addOption(optionResolution, []byte{inNanoseconds})
	c.endWithOptions(start)
}

// Add appends a packet, which lies in pieces.
func (c *Capture) Add(at time.Time, way Way, head []byte, body ...[]byte) {
	length := len(head)
	for _, piece := range body {
		length += len(piece)
	}
	start := c.begin(blockPacket)
	c.add32(0) // interface
	c.addTime(at)
	c.add32(uint32(length)) // captured
	c.add32(uint32(length)) // of the packet
	*c = append(*c, head...)
	for _, piece := range body {
		*c = append(*c, piece...)
	}
	c.fill(length)
	c.add16(optionFlags)
	c.add16(4) // bytes
	c.add32(uint32(way))
	c.endWithOptions(start)
}

// CapturedSize returns how many bytes Add appends for a packet of that length, in
// bytes, at most.
func CapturedSize(length int) int {
	const around = 12 + 20 + 8 + 4 + 3 // block, fields, flags, end of options, padding
	return length + around
}

// End appends how many packets the capture lacks.
func (c *Capture) End(at time.Time, lacking uint64) {
	start := c.begin(blockStatistics)
	c.add32(0) // interface
	c.addTime(at)
	c.add16(optionDropped)
	c.add16(8) // bytes
	c.add64(lacking)
	c.endWithOptions(start)
}

// begin appends the start of a block, whose length end fills in.
func (c *Capture) begin(kind uint32) (start int) {
	start = len(*c)
	c.add32(kind)
	c.add32(0)
	return start
}

// end ends the block that began at start: its length is at both ends of it.
func (c *Capture) end(start int) {
	length := uint32(len(*c) - start + 4)
	binary.LittleEndian.PutUint32((*c)[start+4:], length)
	c.add32(length)
}

func (c *Capture) endWithOptions(start int) {
	c.addOption(optionEnd, nil)
	c.end(start)
}

func (c *Capture) addOption(code uint16, value []byte) {
	c.add16(code)
	c.add16(uint16(len(value)))
	*c = append(*c, value...)
	c.fill(len(value))
}

// addTime appends nanoseconds since 1970, the upper half first.
func (c *Capture) addTime(at time.Time) {
	n := uint64(at.UnixNano())
	c.add32(uint32(n >> 32))
	c.add32(uint32(n))
}

// fill fills up what is n bytes long to a multiple of 4.
func (c *Capture) fill(n int) { *c = append(*c, make([]byte, -n&3)...) }

func (c *Capture) add16(v uint16) { *c = binary.LittleEndian.AppendUint16(*c, v) }
func (c *Capture) add32(v uint32) { *c = binary.LittleEndian.AppendUint32(*c, v) }
func (c *Capture) add64(v uint64) { *c = binary.LittleEndian.AppendUint64(*c, v) }
