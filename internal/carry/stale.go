package carry

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// ErrInUse says that another process serves a unix socket.
var ErrInUse = errors.New("another process serves this socket")

// RemoveStale removes the unix socket at path if the process that served it has
// ended, and nothing else: what is no socket stays, and so does a socket of which it
// is not certain that nobody serves it. Then the error tells what is in the way.
func RemoveStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s: a file that is no socket is in the way: remove it, or choose another path", path)
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%w: stop it, or choose another path", ErrInUse)
	case !IsErrno(err, syscall.ECONNREFUSED): // a live one may have no room for us, or speak otherwise
		return fmt.Errorf("%w, it seems: stop it, or choose another path (%w)", ErrInUse, err)
	}
	return os.Remove(path)
}
