package derp

import (
	"errors"
	"io"
	"net"

	"github.com/seed94491740/tsnode/host"
)

// Sizes of a read buffer in bytes. It is small while a connection is idle
// (DERP-161), grows when reads fill it and to hold a large frame, and shrinks
// after a row of small reads.
const (
	readIdle  = 4 << 10
	readBusy  = 64 << 10 // a few full TLS records (RFC 8446 section 5.1)
	readLarge = HeaderSize + maxPayload

	readCalm = 64 // this many small reads in a row shrink the buffer
)

// A readBuffer reads ahead from a stream.
type readBuffer struct {
	r          io.Reader
	buf        []byte
	start, end int // unread bytes are buf[start:end]
	small      int // reads in a row that an idle buffer could have taken
}

// prepend makes b the first bytes of the stream.
func (f *readBuffer) prepend(b []byte) {
	f.resize(max(readIdle, len(b)))
	f.end = copy(f.buf, b)
}

func (f *readBuffer) buffered() int { return f.end - f.start }

// take returns the next n buffered bytes, borrowed until the next fill.
func (f *readBuffer) take(n int) []byte {
	b := f.buf[f.start : f.start+n : f.start+n]
	f.start += n
	return b
}

// fill reads until n bytes are buffered. The stream's end gives io.EOF when
// nothing is buffered and io.ErrUnexpectedEOF otherwise.
func (f *readBuffer) fill(n int) error {
	for f.buffered() < n {
		f.makeRoom(n)
		got, err := f.r.Read(f.buf[f.end:])
		f.end += got
		f.learn(got)
		if err != nil && f.buffered() < n {
			if f.buffered() > 0 {
				return noEOF(err)
			}
			return err
		}
	}
	return nil
}

// makeRoom gives the buffer free space at its end, and space for n bytes in
// all.
func (f *readBuffer) makeRoom(n int) {
	if f.start == f.end {
		f.start, f.end = 0, 0
	}
	switch {
	case n > len(f.buf):
		f.resize(max(min(max(2*len(f.buf), readIdle), readLarge), n))
	case f.small >= readCalm && len(f.buf) > readIdle && max(n, f.buffered()) < readIdle:
		f.resize(readIdle)
	case f.end == len(f.buf) || f.start+n > len(f.buf):
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
}

// learn grows a buffer that a read has filled.
func (f *readBuffer) learn(got int) {
	switch {
	case got > readIdle/2:
		f.small = 0
	case len(f.buf) > readIdle:
		f.small++
	}
	if f.end-got == 0 && f.end == len(f.buf) && len(f.buf) < readBusy {
		f.resize(min(4*len(f.buf), readBusy))
	}
}

// resize moves what is unread to a new buffer of size bytes.
func (f *readBuffer) resize(size int) {
	buf := make([]byte, size)
	f.end = copy(buf, f.buf[f.start:f.end])
	f.buf, f.start, f.small = buf, 0, 0
}

// noEOF turns an end in the middle of a frame into io.ErrUnexpectedEOF.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A wire is the transport below TLS. It reads ahead, so that one system call
// takes in several TLS records, and says when it is about to wait for the
// network: then everything that has arrived was delivered.
type wire struct {
	host.Conn
	in   readBuffer
	idle func() // called by the reading goroutine before it may block; may be nil
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: host.Conn{Inner: c}}
	w.in.r = c
	w.in.resize(readIdle)
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if w.in.buffered() == 0 {
		if w.idle != nil {
			w.idle()
		}
		if err := w.in.fill(1); err != nil {
			return 0, err
		}
	}
	return copy(p, w.in.take(min(len(p), w.in.buffered()))), nil
}
