//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// descriptor duplicates one, which whoever is given it may close.
func descriptor(t *testing.T, fd int) int {
	t.Helper()
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstOwn)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// VPN-01, VPN-02: what carries no stream of bytes is refused, and stays open for
// the manager's next try.
func TestInheritedRefuses(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, kind := range map[string]int{"SOCK_DGRAM": unix.SOCK_DGRAM, "SOCK_SEQPACKET": unix.SOCK_SEQPACKET} {
		fds, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			continue // not on every system
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			defer unix.Close(fd)
		}
		if _, err := inheritedSocket(fds[0]); !errors.Is(err, errNoStream) {
			t.Errorf("a socket of %s as --fd: %v", name, err)
		}
		if _, err := inheritedPipes(fds[0], fds[1]); !errors.Is(err, errNoStream) {
			t.Errorf("sockets of %s as pipes: %v", name, err)
		}
		if _, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFD, 0); err != nil {
			t.Errorf("a descriptor that was refused is closed: %v", err)
		}
	}
	if _, err := inheritedPipes(int(file.Fd()), int(file.Fd())); !errors.Is(err, errNoStream) {
		t.Errorf("a file: %v", err)
	}
	for _, fd := range []int{0, 1, 2} {
		if _, err := inheritedSocket(fd); err == nil || !strings.Contains(err.Error(), "3 or more") {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
	if _, err := inheritedSocket(1 << 20); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that is not open: %v", err)
	}
}

// VPN-01: pipes and stream sockets are streams, and not handed on to programs that
// the tunnel might start.
func TestInherited(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	s, err := inheritedSocket(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	in, out := descriptor(t, int(r.Fd())), descriptor(t, int(w.Fd()))
	if _, err := unix.FcntlInt(uintptr(in), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	s, err = inheritedPipes(in, out)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if flags, err := unix.FcntlInt(uintptr(in), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 1)
	if _, err := s.Read(b); err != nil || b[0] != 'x' {
		t.Errorf("read %q, %v", b, err)
	}
}
