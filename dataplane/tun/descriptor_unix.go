//go:build unix

package tun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const errAgain = unix.EAGAIN // a read that finds nothing

var errClosed = os.ErrClosed

// A descriptor is what a device reads and writes, never waiting but in await.
type descriptor struct {
	file *os.File
	raw  syscall.RawConn
	in   call // of the loop that reads
}

// A call is one read or write in the making. It is kept so that the call costs no
// memory.
type call struct {
	run func(fd uintptr) // made once
	do  func(fd int, b []byte) (int, error)
	b   []byte
	n   int
	err error
}

// Duplicate returns an open file of its own for a descriptor, which stays as it
// is and open (VPN-41).
func Duplicate(fd uintptr) (*os.File, error) {
	dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tun: descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(dup), fmt.Sprintf("descriptor %d", fd)), nil
}

// open duplicates the descriptor of a file and finds out what it is.
func open(file *os.File) (*descriptor, Framing, string, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, Framing{}, "", fmt.Errorf("tun: %w", err)
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(given uintptr) { fd, dupErr = unix.FcntlInt(given, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dupErr != nil {
		return nil, Framing{}, "", fmt.Errorf("tun: %s: %w", file.Name(), errors.Join(err, dupErr))
	}
	framing, name, err := identify(fd)
	if err == nil {
		// The poller takes it only if it is attached, and does not block (VPN-43).
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, Framing{}, "", fmt.Errorf("tun: %s: %w", file.Name(), err)
	}
	d := &descriptor{file: os.NewFile(uintptr(fd), file.Name())}
	if d.raw, err = d.file.SyscallConn(); err != nil {
		d.close()
		return nil, Framing{}, "", fmt.Errorf("tun: %s: %w", file.Name(), err)
	}
	return d, framing, name, nil
}

// identifySocket tells whether a descriptor is a socket that keeps messages of
// this machine apart (VPN-44).
func identifySocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_DGRAM && kind != unix.SOCK_SEQPACKET {
		return false
	}
	at, err := unix.Getsockname(fd)
	_, local := at.(*unix.SockaddrUnix)
	return err == nil && local
}

// read reads one frame; errAgain when there is none, io.EOF when the other side
// has closed.
func (d *descriptor) read(b []byte) (int, error) {
	n, err := d.in.try(d.raw, unix.Read, b)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

// write writes one frame.
func (d *descriptor) write(c *call, b []byte) error {
	_, err := c.try(d.raw, unix.Write, b)
	return err
}

// try makes one system call. It takes no lock, and does not wait for the poller.
func (c *call) try(raw syscall.RawConn, do func(int, []byte) (int, error), b []byte) (int, error) {
	if c.run == nil {
		c.run = func(fd uintptr) {
			for c.err = unix.EINTR; c.err == unix.EINTR; {
				c.n, c.err = c.do(int(fd), c.b)
			}
		}
	}
	c.do, c.b = do, b
	err := raw.Control(c.run)
	c.b = nil
	if err != nil {
		return 0, errClosed
	}
	return c.n, c.err
}

// await returns when there is something to read, or an error to find by reading.
func (d *descriptor) await() error {
	return d.raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// interrupt ends await with os.ErrDeadlineExceeded until resume is called.
func (d *descriptor) interrupt() { d.file.SetReadDeadline(time.Unix(1, 0)) }

// resume undoes interrupt.
func (d *descriptor) resume() { d.file.SetReadDeadline(time.Time{}) }

func (d *descriptor) close() error { return d.file.Close() }
