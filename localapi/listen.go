package localapi

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/seed94491740/tsnode/internal/carry"
)

const (
	socketMode = 0o666 // SVC-121: who may do what follows from who connects
	folderMode = 0o755 // of a folder that is made for the socket
	lockMode   = 0o600
)

// ErrInUse says that another process serves the socket.
var ErrInUse = carry.ErrInUse

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
	if err := carry.RemoveStale(path); err != nil {
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
