package netstack

import (
	"io"
	"sync"
)

// copySize is what a copy from or to a connection moves at a time, in bytes.
const copySize = 32 << 10

// copyBuffers are lent to copies: a short connection would else leave more garbage
// by its buffer than by all the rest.
var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

var (
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)

// ReadFrom implements io.ReaderFrom: io.Copy to the connection makes no buffer of
// its own.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	b := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(b)
	return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, b[:])
}

// WriteTo implements io.WriterTo: io.Copy from the connection makes no buffer of
// its own, and holds none while there is nothing to copy.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if err := c.awaitData(); err != nil {
			return n, err
		}
		moved, err := c.writeSome(w)
		n += moved
		switch err {
		case nil:
		case io.EOF:
			return n, nil
		default:
			return n, err
		}
	}
}

// awaitData waits until Read returns at once.
func (c *Conn) awaitData() error {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	for {
		if err := c.end.check(c.read); err != nil {
			return c.fail("read", err)
		}
		if c.ep.Readiness(c.read.entry.Mask()) != 0 {
			return nil
		}
		c.account.waits()
		if err := c.end.wait(c.read); err != nil {
			return c.fail("read", err)
		}
	}
}

// writeSome moves to w what one Read returns.
func (c *Conn) writeSome(w io.Writer) (int64, error) {
	b := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(b)
	n, err := c.Read(b[:])
	if err != nil {
		return 0, err
	}
	written, err := w.Write(b[:n])
	if err == nil && written < n {
		err = io.ErrShortWrite
	}
	return int64(written), err
}
