package relay

import (
	"sync"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// frameSize is the capacity in bytes of a pooled frame: a WireGuard datagram on
// any common path, and the header.
const frameSize = 2048

// A frame is one RecvPacket frame on its way to a client. Its data is read from
// the sender's connection straight into it, and handed from queue to writer
// (DERP-163).
type frame struct {
	b         []byte
	disco     bool
	forwarded bool      // came through the mesh
	queued    time.Time // when it was queued, of a sample of frames; else zero
}

var framePool = sync.Pool{New: func() any { return &frame{b: make([]byte, 0, frameSize)} }}

// newFrame returns a frame with space for n bytes of data from src.
func newFrame(src key.NodePublic, n int) *frame {
	f := framePool.Get().(*frame)
	size := derp.SendHeaderSize + n
	if size > cap(f.b) {
		framePool.Put(f)
		f = &frame{b: make([]byte, 0, size)}
	}
	raw := src.Raw()
	f.b = append(derp.AppendHeader(f.b[:0], derp.FrameRecvPacket, key.Size+n), raw[:]...)[:size]
	f.disco, f.forwarded, f.queued = false, false, time.Time{}
	return f
}

// release gives the frame back; a large one is left to the garbage collector.
func (f *frame) release() {
	if cap(f.b) == frameSize {
		framePool.Put(f)
	}
}

func (f *frame) src() key.NodePublic {
	return key.NodePublicFromRaw([key.Size]byte(f.b[derp.HeaderSize:]))
}

// data returns the packet in the frame.
func (f *frame) data() []byte { return f.b[derp.SendHeaderSize:] }

// A fifo holds a bounded number of frames. Its memory is made when the first
// comes and let go when its client is idle.
type fifo struct {
	ring        []*frame
	start, used int
}

// push appends f; when there are depth frames already the oldest is returned.
func (q *fifo) push(f *frame, depth int) (oldest *frame) {
	if q.ring == nil {
		q.ring = make([]*frame, depth)
	}
	if q.used == depth {
		oldest = q.pop()
	}
	q.ring[(q.start+q.used)%depth] = f
	q.used++
	return oldest
}

func (q *fifo) pop() *frame {
	f := q.ring[q.start]
	q.ring[q.start] = nil
	q.start = (q.start + 1) % len(q.ring)
	q.used--
	return f
}

// appendAll moves all frames to dst.
func (q *fifo) appendAll(dst []*frame) []*frame {
	for q.used > 0 {
		dst = append(dst, q.pop())
	}
	return dst
}
