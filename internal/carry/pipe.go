package carry

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Traffic counts the bytes that went each way, and the flows of datagrams. The bytes
// of a stream between two sockets of the kernel, which moves them itself, are
// counted when it ends.
type Traffic struct {
	In  atomic.Uint64 // from the side that asked
	Out atomic.Uint64 // to it

	Flows   atomic.Uint64 // flows of datagrams begun
	Dropped atomic.Uint64 // datagrams for which there was no room, or that could not be sent on
}

// send sends a datagram on, and counts it.
func (t *Traffic) send(to net.Conn, b []byte, bytes *atomic.Uint64) {
	n, err := to.Write(b)
	if err != nil {
		t.Dropped.Add(1)
		return
	}
	bytes.Add(uint64(n))
}

// Pipe copies between the connection that asked and the one that was made for it
// until both directions have ended, passing on half-close each way (SVC-53,
// SVC-170), and closes both. An error of one direction, and the end of ctx, close
// both at once. It returns the first error other than an ordinary end. While
// nothing is copied, no buffer is held.
func Pipe(ctx context.Context, asked, made net.Conn, t *Traffic) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	g := actor.NewGroup(within)
	closeBoth := func() { asked.Close(); made.Close() }
	stop := context.AfterFunc(g.Context(), closeBoth)
	defer stop()
	defer closeBoth()
	g.Go(func(context.Context) error { return half(made, asked, &t.In) })
	err := actor.Guard(within, func(context.Context) error { return half(asked, made, &t.Out) })
	if err != nil {
		cancel() // the other direction waits for data that can no longer be answered
	}
	other := g.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	}
	return other
}

// half copies from src to dst until src ends, then closes dst for writing. That
// the connections are closed is no error: whoever closed them knows why.
func half(dst, src net.Conn, moved *atomic.Uint64) error {
	if err := move(dst, src, moved); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	CloseWrite(dst) // an error shows up in the other direction
	return nil
}

// copySize is what a copy moves at a time, in bytes.
const copySize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// move copies from src to dst in the cheapest way there is: by the kernel between
// two of its sockets, else such that a connection that is silent holds no buffer.
func move(dst, src net.Conn, moved *atomic.Uint64) error {
	counted := counter{dst, moved}
	if s, ok := ofKernel(src); ok {
		if _, ok := ofKernel(dst); !ok {
			return moveReady(counted, s)
		}
		n, err := io.Copy(dst, src)
		moved.Add(uint64(n))
		return err
	}
	if w, ok := src.(io.WriterTo); ok {
		_, err := w.WriteTo(counted)
		return err
	}
	return moveBuffered(counted, src)
}

// moveBuffered copies with a buffer that is held until src ends.
func moveBuffered(dst io.Writer, src io.Reader) error {
	b := buffers.Get().(*[copySize]byte)
	defer buffers.Put(b)
	_, err := io.CopyBuffer(dst, struct{ io.Reader }{src}, b[:])
	return err
}

// A counter counts what is written.
type counter struct {
	w     io.Writer
	moved *atomic.Uint64
}

func (c counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.moved.Add(uint64(n))
	return n, err
}
