package netstack

import "gvisor.dev/gvisor/pkg/tcpip/stack"

// A ring is a queue of packets that grows by doubling; its owner bounds it. It
// gives its memory back when it is empty after having been large.
type ring struct {
	buf        []*stack.PacketBuffer // length a power of two
	head, size int
}

// keepRing is the largest empty ring that is kept, in packets.
const keepRing = 256

func (r *ring) push(p *stack.PacketBuffer) {
	if r.size == len(r.buf) {
		r.grow()
	}
	r.buf[(r.head+r.size)&(len(r.buf)-1)] = p
	r.size++
}

func (r *ring) grow() {
	buf := make([]*stack.PacketBuffer, max(16, 2*len(r.buf)))
	n := copy(buf, r.buf[r.head:])
	copy(buf[n:], r.buf[:r.head])
	r.buf, r.head = buf, 0
}

// pop returns the oldest packet, nil when there is none.
func (r *ring) pop() *stack.PacketBuffer {
	if r.size == 0 {
		return nil
	}
	p := r.buf[r.head]
	r.buf[r.head] = nil
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.size--
	if r.size == 0 && len(r.buf) > keepRing {
		r.buf, r.head = nil, 0
	}
	return p
}
