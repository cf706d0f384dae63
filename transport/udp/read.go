package udp

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport"
)

const (
	// readBuffers is how many messages one read may take (WG-81).
	readBuffers = 8

	// quietBuffers is how many until busyReads reads in a row have been full, and
	// again once they have been enough for calmReads in a row. Either are taken when
	// there is something to read, and are another reader's after it: most nodes of a
	// process are idle.
	quietBuffers = 2
	busyReads    = 2
	calmReads    = 1024

	// readBuffer is the size of each in bytes: what the host joins, at most.
	readBuffer = 64 << 10

	// ReadMemory is what each receive goroutine reads into, in bytes, at most: there
	// is one per socket, and a socket per family.
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
	busy     bool // reads take readBuffers messages
	streak   int  // reads in a row that called for another number of messages
	crowded  bool // that the socket is was told
}

func newReader(s *Socket, f *family, i int) *reader {
	return &reader{socket: s, family: f, conn: &f.conns[i], receiver: s.newReceiver()}
}

// Messages of all readers, by how busy these are.
var (
	quietMemory = sync.Pool{New: func() any { ms := newMessages(quietBuffers); return &ms }}
	busyMemory  = sync.Pool{New: func() any { ms := newMessages(readBuffers); return &ms }}
)

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
		err := r.pass(c)
		switch {
		case err == nil:
			pause.Reset()
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

// pass reads once and delivers. The memory for it is taken, if the host can wait
// without, when there is something to read.
func (r *reader) pass(c host.UDPConn) error {
	if w, ok := c.(host.Waiter); ok {
		if err := w.WaitRead(); err != nil {
			return err
		}
	}
	memory := &quietMemory
	if r.busy {
		memory = &busyMemory
	}
	ms := memory.Get().(*[]host.Message)
	defer memory.Put(ms)
	n, err := c.ReadBatch(*ms)
	if err != nil {
		return err
	}
	r.deliver((*ms)[:n])
	if !r.crowded && crowd((*ms)[:n]) {
		r.crowded = true
		r.socket.tellCrowded(r.family)
	}
	r.adapt(n)
	return nil
}

// adapt has reads take more messages once the socket is busy, and fewer when it
// has long been calm; the last has taken n.
func (r *reader) adapt(n int) {
	more, enough := n >= quietBuffers, busyReads
	if r.busy {
		more, enough = n > quietBuffers, calmReads
	}
	if r.inRow(more != r.busy) == enough {
		r.busy, r.streak = !r.busy, 0
	}
}

// inRow returns how many reads in a row, with the last, have called for another
// number of messages.
func (r *reader) inRow(called bool) int {
	if !called {
		r.streak = 0
	} else {
		r.streak++
	}
	return r.streak
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
