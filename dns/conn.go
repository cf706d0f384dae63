package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Dial returns a connection to the resolver inside the process: what is written
// to it are questions as over TCP, what is read their answers. It is for
// net.Resolver.
func (r *Resolver) Dial() net.Conn {
	c := &memoryConn{resolver: r}
	c.ctx, c.cancel = context.WithCancel(r.ended)
	return c
}

// A memoryConn answers the question that was written when its answer is read, on
// the goroutine that reads.
type memoryConn struct {
	resolver *Resolver
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc

	mu       sync.Mutex
	in, out  []byte // what was written, and what is to be read
	deadline time.Time
}

// Write takes a part of a question.
func (c *memoryConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ctx.Err() != nil:
		return 0, net.ErrClosed
	case len(c.in)+len(b) > maxMessage+2:
		return 0, errors.New("dns: more questions than one at a time: read the answer first")
	}
	c.in = append(c.in, b...)
	return len(b), nil
}

// Read answers the next question. Without one there is nothing to wait for: it
// returns io.EOF.
func (c *memoryConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 {
		if err := c.answer(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.out)
	c.out = c.out[n:]
	return n, nil
}

func (c *memoryConn) answer() error {
	if c.ctx.Err() != nil {
		return net.ErrClosed
	}
	if len(c.in) < 2 || len(c.in)-2 < int(binary.BigEndian.Uint16(c.in)) {
		return io.EOF
	}
	end := 2 + int(binary.BigEndian.Uint16(c.in))
	question := c.in[2:end]
	c.in = c.in[end:]
	ctx := c.ctx
	if !c.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, c.deadline, os.ErrDeadlineExceeded)
		defer cancel()
	}
	response, err := c.resolver.respond(ctx, question, false, c.resolver.forwardOrHost)
	switch {
	case c.ctx.Err() != nil:
		return net.ErrClosed
	case ctx.Err() != nil:
		return os.ErrDeadlineExceeded
	case err != nil:
		return err
	}
	c.out = append(binary.BigEndian.AppendUint16(c.out[:0], uint16(len(response))), response...)
	return nil
}

// Close ends the question under way.
func (c *memoryConn) Close() error {
	c.cancel()
	return nil
}

// LocalAddr and RemoteAddr return the service address: there is no other.
func (c *memoryConn) LocalAddr() net.Addr { return c.RemoteAddr() }
func (c *memoryConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: ServiceIPv4.AsSlice(), Port: dnsPort}
}

// SetDeadline bounds the answering of questions from now on.
func (c *memoryConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// SetReadDeadline is SetDeadline.
func (c *memoryConn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

// SetWriteDeadline does nothing: writing never waits.
func (*memoryConn) SetWriteDeadline(time.Time) error { return nil }
