package udp

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport"
)

const (
	// readBuffers is how many messages one read may take (WG-81).
	readBuffers = 8

	// quietBuffers is how many until busyReads reads in a row have been full: most
	// nodes of a process are idle, and memory that was used before is written to
	// when it is taken anew.
	quietBuffers = 2
	busyReads    = 2

	// readBuffer is the size of each in bytes: what the host joins, at most.
	readBuffer = 64 << 10

	// ReadMemory is what each receive goroutine reads into, in bytes: there is one
	// per socket, and a socket per family.
	ReadMemory = readBuffers * readBuffer

	// maxReadPause bounds how long a reader waits after a read has failed.
	maxReadPause = time.Second

	// maxReadFailures is how many reads in a row may fail before the socket is
	// held for broken.
	maxReadFailures = 10
)

// A reader is one receive goroutine with all it needs.
type reader struct {
	socket   *Socket
	family   *family
	conn     *actor.Cell[host.UDPConn] // one of the family's
	receiver transport.Receiver
	messages []host.Message
	full     int  // reads in a row that were full, while few messages are taken
	crowded  bool // that the socket is was told
}

func newReader(s *Socket, f *family, i int) *reader {
	return &reader{socket: s, family: f, conn: &f.conns[i], receiver: s.newReceiver(), messages: newMessages(quietBuffers)}
}

// newMessages returns n messages with memory to read into.
func newMessages(n int) []host.Message {
	arena := make([]byte, n*readBuffer)
	ms := make([]host.Message, n)
	for i := range ms {
		ms[i].Buf = arena[i*readBuffer : (i+1)*readBuffer : (i+1)*readBuffer]
	}
	return ms
}

// read reads whatever socket is in its place, across rebinds, until ctx ends.
func (r *reader) read(ctx context.Context) error {
	for {
		c, changed := r.conn.Load()
		r.crowded = len(r.family.conns) == 1 // nothing to tell
		if c != nil && !r.drain(ctx, c) && r.conn.Get() == c {
			post(r.socket.broken)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// drain reads one socket until it is closed, or false until it looks broken.
func (r *reader) drain(ctx context.Context, c host.UDPConn) (closed bool) {
	pause := actor.Backoff{Max: maxReadPause}
	for {
		n, err := c.ReadBatch(r.messages)
		switch {
		case err == nil:
			pause.Reset()
			r.deliver(r.messages[:n])
			if !r.crowded && crowd(r.messages[:n]) {
				r.crowded = true
				r.socket.tellCrowded(r.family)
			}
			r.adapt(n)
		case errors.Is(err, net.ErrClosed):
			return true
		default: // of one datagram, as WSAEMSGSIZE is (PATH-59)
			r.socket.stats.readErrors.Add(1)
			if pause.Failures() == maxReadFailures {
				return false
			}
			if pause.Wait(ctx) != nil {
				return true
			}
		}
	}
}

// adapt has reads take more messages once the socket is busy; the last has taken n.
func (r *reader) adapt(n int) {
	switch {
	case len(r.messages) == readBuffers:
	case n < len(r.messages):
		r.full = 0
	default:
		if r.full++; r.full == busyReads {
			r.messages = newMessages(readBuffers)
		}
	}
}

// crowd reports whether a read was full of more than one sender's datagrams: the
// goroutine that reads them does not keep up, and another could help.
func crowd(ms []host.Message) bool {
	if len(ms) < readBuffers {
		return false
	}
	for i := range ms {
		if ms[i].From != ms[0].From {
			return true
		}
	}
	return false
}

// deliver hands one batch to the receiver.
func (r *reader) deliver(ms []host.Message) {
	more, datagrams := 0, 0
	for i := range ms {
		more += ms[i].N
	}
	r.socket.stats.receivedBytes.Add(uint64(more))
	for i := range ms {
		m := &ms[i]
		more -= m.N
		if m.N == 0 { // skipped: PATH-62
			continue
		}
		segment, count := 0, 1
		if m.Segment > 0 && m.Segment < m.N {
			segment, count = m.Segment, (m.N+m.Segment-1)/m.Segment
		}
		datagrams += count
		r.receiver.Receive(transport.Endpoint{Addr: m.From}, m.Buf[:m.N], segment, more)
	}
	r.socket.stats.received.Add(uint64(datagrams))
	r.receiver.Flush()
}
