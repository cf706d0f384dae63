//go:build unix

package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// testSocket makes a socket in a folder of that mode.
func testSocket(t *testing.T, mode os.FileMode) (path string, ln *net.UnixListener) {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(folder, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(folder, mode); err != nil {
		t.Fatal(err)
	}
	return path, l.(*net.UnixListener)
}

// The first socket that is served is found; that of a process that was killed does
// not hide it, and what another user may have put there is not asked.
func TestFindSocket(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	live, _ := testSocket(t, 0o755)
	sticky, _ := testSocket(t, 0o777|os.ModeSticky)
	open, _ := testSocket(t, 0o777)
	stale, ln := testSocket(t, 0o755)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(live, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		places []string
		want   string
		err    string // part of
	}{
		{"one", []string{none, live}, live, ""},
		{"a stale one before it", []string{stale, live}, live, ""},
		{"a stale one alone", []string{none, stale}, stale, ""},
		{"in a folder like /tmp", []string{sticky}, sticky, ""},
		{"where everybody may replace it", []string{open}, "", open + " may be another user's: if you trust it, name it by --socket"},
		{"where everybody may replace it, and another", []string{open, live}, live, ""},
		{"a link", []string{link}, "", "no socket"},
		{"none", []string{none}, "", "there is none of " + none},
	} {
		got, err := findSocket(tt.places)
		if got != tt.want || (err == nil) != (tt.err == "") {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
		if tt.err != "" && (!errors.Is(err, errNoNode) || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

// An ownedFile is a file of a user.
type ownedFile struct {
	fs.FileInfo
	uid int
}

func (f ownedFile) Sys() any { return &syscall.Stat_t{Uid: uint32(f.uid)} }

// Files of root and of our own user are ours, those of another are not.
func TestIsOurs(t *testing.T) {
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, os.Geteuid() + 4711: false} {
		if isOurs(ownedFile{uid: uid}) != want {
			t.Errorf("user %d: want %v", uid, want)
		}
	}
}
