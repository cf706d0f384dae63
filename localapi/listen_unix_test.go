//go:build linux || darwin || freebsd

package localapi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A link in place of the lock, in a folder of all users, is not followed.
func TestListenFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), path+".lock"); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(path); err == nil {
		ln.Close()
		t.Error("the link was followed")
	} else if !strings.Contains(err.Error(), path+".lock") || !strings.Contains(err.Error(), "choose another folder") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a file was made where the link leads")
	}
}
