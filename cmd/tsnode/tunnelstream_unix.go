//go:build unix

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/vpn"
)

// firstOwn is the least descriptor that is none of standard input, output and
// error: on those a closed pipe ends the process instead of the write (VPN-02).
const firstOwn = 3

// inherited takes over a descriptor that the manager has opened for us. It is not
// handed on to other programs, and closing it wakes who waits for it.
func inherited(fd int, flag string) (*os.File, error) {
	if fd < firstOwn {
		return nil, &usageError{fmt.Errorf("%s %d: want a descriptor of %d or more", flag, fd, firstOwn)}
	}
	if err := checkStream(fd, flag); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return pollable(fd, flag)
}

// pollable makes a file of a descriptor which Close wakes up from.
func pollable(fd int, name string) (*os.File, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("%s %d: %w", name, fd, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// errNoStream says that a descriptor does not carry a stream of bytes that ends.
var errNoStream = errors.New("want a pipe, or a socket with a stream of bytes")

// checkStream fails for what is neither a pipe nor a stream socket: a read of
// another socket cuts messages short, and nothing wakes one of a file (VPN-01).
func checkStream(fd int, flag string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s %d: %w: the manager must open it, and let this process inherit it", flag, fd, err)
	}
	kind := uint32(st.Mode) & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		if t, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && t == unix.SOCK_STREAM {
			return nil
		}
	}
	if kind == unix.S_IFIFO {
		return nil
	}
	return &usageError{fmt.Errorf("%s %d: %w", flag, fd, errNoStream)}
}

// inheritedSocket is the stream on a socket.
func inheritedSocket(fd int) (vpn.Stream, error) {
	f, err := inherited(fd, "--fd")
	if err != nil {
		return nil, err
	}
	defer f.Close() // the connection has a descriptor of its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("--fd %d: %w: want a socket; for pipes use --read-fd and --write-fd", fd, err)
	}
	s, ok := c.(vpn.Stream)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("--fd %d: want a socket with a stream of bytes", fd)
	}
	return s, nil
}

// inheritedPipes is the stream on two pipes.
func inheritedPipes(read, write int) (vpn.Stream, error) {
	r, err := inherited(read, "--read-fd")
	if err != nil {
		return nil, err
	}
	w, err := inherited(write, "--write-fd")
	if err != nil {
		r.Close()
		return nil, err
	}
	return vpn.Pair(r, w), nil
}

// duplicatedPipes is the stream on standard input and output. Their descriptors
// then lead elsewhere, so that nothing else reads or writes on it.
func duplicatedPipes(in, out *os.File) (vpn.Stream, error) {
	r, err := duplicated(in)
	if err != nil {
		return nil, err
	}
	w, err := duplicated(out)
	if err != nil {
		r.Close()
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer null.Close()
		err = errors.Join(replace(null, in), replace(null, out))
	}
	if err != nil {
		r.Close()
		w.Close()
		return nil, err
	}
	return vpn.Pair(r, w), nil
}

func duplicated(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, firstOwn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return pollable(fd, f.Name())
}
