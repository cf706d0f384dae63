//go:build linux || darwin || freebsd

package localapi

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock that a process has while it serves a socket; it ends
// with the process. The file stays: removing it would let two processes lock two
// files of one name.
func lockFile(path string) (*os.File, error) {
	// In a folder of all users a link of another one must not lead us elsewhere.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, lockMode)
	if err != nil {
		return nil, fmt.Errorf("%w: choose another folder for the socket, or remove the file", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: stop it, or choose another path", ErrInUse)
	}
	return nil, &os.PathError{Op: "lock", Path: path, Err: err}
}
