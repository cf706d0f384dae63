package wireguard

import "github.com/seed94491740/tsnode/packet"

const (
	// maxBurstCount and maxBurstBytes bound one UDP_SEGMENT send: Linux takes 64
	// segments (UDP_MAX_SEGMENTS in its first form, linux/udp.h), and a UDP
	// payload over IPv4 is at most 65,535 - 20 - 8 bytes. The Sealer does not
	// know the family; over IPv6 20 bytes stay unused.
	maxBurstCount = 64
	maxBurstBytes = 65507

	maxBursts = 64 // bursts sent in one call
)

// A bursts is a row of datagrams in an arena, grouped so that each group is what
// one UDP_SEGMENT send takes.
type bursts struct {
	list [maxBursts]packet.Burst
	n    int  // in use
	from int  // where the last begins in the arena, in bytes
	shut bool // the last ends with a shorter datagram
}

// full reports whether a datagram of stride bytes, room included, that ends at
// end in the arena would need a burst too many.
func (b *bursts) full(stride, end int) bool { return b.n == maxBursts && !b.extends(stride, end) }

// extends reports whether that datagram fits the last burst (WG-63).
func (b *bursts) extends(stride, end int) bool {
	if b.n == 0 || b.shut {
		return false
	}
	last := &b.list[b.n-1]
	return stride <= last.Room+last.Size && last.Count < maxBurstCount && end-b.from <= maxBurstBytes
}

// add takes the datagram of room and size bytes that ends at end in the arena.
func (b *bursts) add(arena []byte, room, size, end int) {
	stride := room + size
	if !b.extends(stride, end) {
		b.list[b.n] = packet.Burst{Room: room, Size: size}
		b.n++
		b.from, b.shut = end-stride, false
	}
	last := &b.list[b.n-1]
	last.Count++
	last.Buf = arena[b.from:end]
	b.shut = size < last.Size
}

// take returns the bursts and empties b.
func (b *bursts) take() []packet.Burst {
	n := b.n
	b.n, b.shut = 0, false
	return b.list[:n]
}
