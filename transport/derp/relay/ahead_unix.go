//go:build unix

package relay

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// aheadSize is how many bytes one system call reads of a connection without
// TLS.
const aheadSize = 64 << 10

var aheadPool = sync.Pool{New: func() any { b := make([]byte, aheadSize); return &b }}

// An ahead reads several frames of a TCP connection at once. It borrows its
// buffer when there is something to read, and not while it waits (DERP-162).
type ahead struct {
	raw        syscall.RawConn
	buf        *[]byte // nil when nothing is buffered
	start, end int
}

// readAhead returns a reader of c. TLS has a buffer of its own.
func readAhead(c net.Conn) io.Reader {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	return &ahead{raw: raw}
}

// Read returns what is buffered, or reads ahead.
func (a *ahead) Read(p []byte) (int, error) {
	if a.buf == nil {
		if err := a.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, (*a.buf)[a.start:a.end])
	if a.start += n; a.start == a.end {
		aheadPool.Put(a.buf)
		a.buf = nil
	}
	return n, nil
}

func (a *ahead) fill() (err error) {
	closed := a.raw.Read(func(fd uintptr) (done bool) {
		done, err = a.try(int(fd))
		return done
	})
	if closed != nil {
		return closed
	}
	return err
}

// try reads what is there; false when that is nothing.
func (a *ahead) try(fd int) (done bool, err error) {
	buf, n := aheadPool.Get().(*[]byte), 0
	for err = syscall.EINTR; err == syscall.EINTR; {
		n, err = syscall.Read(fd, *buf)
	}
	if n > 0 {
		a.buf, a.start, a.end = buf, 0, n
		return true, nil
	}
	aheadPool.Put(buf)
	switch err {
	case nil:
		return true, io.EOF
	case syscall.EAGAIN:
		return false, nil
	}
	return true, err
}
