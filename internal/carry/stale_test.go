package carry

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// A socket of a process that has ended makes room; everything else stays.
func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	stale := listenUnix(t, at("stale"))
	stale.SetUnlinkOnClose(false)
	stale.Close()
	listenUnix(t, at("live"))
	if err := os.Symlink(at("stale"), at("link")); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{"file": true, "folder": true, "live": true, "link": true, "nothing": false} {
		err := RemoveStale(at(name))
		if (err != nil) != stays || errors.Is(err, ErrInUse) != (name == "live") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(at(name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := RemoveStale(at("stale")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(at("stale")); !os.IsNotExist(err) {
		t.Errorf("the stale socket: %v", err)
	}
	if b, err := os.ReadFile(at("file")); string(b) != "precious" {
		t.Errorf("the file has %q, %v", b, err)
	}
}

func listenUnix(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}
