package localapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
)

const (
	socketMode = 0o666 // SVC-121: who may do what follows from who connects
	folderMode = 0o755 // of a folder that is made for the socket
	lockMode   = 0o600
)

// ErrInUse says that another process serves the socket.
var ErrInUse = errors.New("another process serves this socket")

// Listen opens the unix socket at path, for all users of the machine. A socket
// that an ended process has left is replaced; that of a live one is not, and the
// error wraps ErrInUse. The folder is made if missing.
func Listen(path string) (net.Listener, error) {
	ln, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("local socket %s: %w", path, err)
	}
	return ln, nil
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), folderMode); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	ln, err := bind(path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &lockedListener{Listener: ln, unlock: sync.OnceFunc(func() { lock.Close() })}, nil
}

// bind makes the socket, over one that nobody serves.
func bind(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// removeStale removes a socket that nobody serves, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return errors.New("a file that is no socket is in the way: remove it, or choose another path")
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("%w: stop it, or choose another path", ErrInUse)
	}
	return os.Remove(path)
}

// A lockedListener gives up the lock of the socket when it is closed.
type lockedListener struct {
	net.Listener
	unlock func()
}

// Close removes the socket.
func (l *lockedListener) Close() error {
	defer l.unlock()
	return l.Listener.Close()
}
