//go:build unix

package carry

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// A live socket that does not speak as we do cannot be asked whether it is: it stays.
func TestRemoveStaleKeepsDatagramSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := RemoveStale(path); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}
