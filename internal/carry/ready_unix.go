//go:build unix

package carry

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// ofKernel returns a stream that the kernel carries.
func ofKernel(c net.Conn) (syscall.Conn, bool) {
	switch c := c.(type) {
	case *net.TCPConn:
		return c, true
	case *net.UnixConn:
		return c, true
	}
	return nil, false
}

// A readyReader reads from a socket once there is something to read, and only
// then takes a buffer.
type readyReader struct {
	buf *[copySize]byte // nil unless it holds n bytes
	n   int
	err error
}

// moveReady copies from a socket until it ends.
func moveReady(dst io.Writer, src syscall.Conn) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	r := new(readyReader)
	try := r.try
	for {
		if err := raw.Read(try); err != nil {
			return err
		}
		if r.err != nil || r.n == 0 {
			return r.err
		}
		_, err := dst.Write(r.buf[:r.n])
		buffers.Put(r.buf)
		if err != nil {
			return err
		}
	}
}

// try reads without waiting, and reports whether the read is over.
func (r *readyReader) try(fd uintptr) bool {
	b := buffers.Get().(*[copySize]byte)
	for {
		r.n, r.err = syscall.Read(int(fd), b[:])
		if r.err != syscall.EINTR {
			break
		}
	}
	if r.err == nil && r.n > 0 {
		r.buf = b
		return true
	}
	buffers.Put(b)
	return !errors.Is(r.err, syscall.EAGAIN)
}
