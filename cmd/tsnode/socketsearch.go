package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// errNoNode says that no node runs, as far as can be seen.
var errNoNode = errors.New("no node runs on this machine that serves a socket")

// socketPlaces are where a socket is looked for.
func socketPlaces() (places []string) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		places = append(places, filepath.Join(dir, "tsnode.sock"))
	}
	return append(places, "/var/run/tsnode/tsnode.sock", "/tmp/tailscaled.sock", "/var/run/tailscale/tailscaled.sock")
}

// findSocket returns the first of places where somebody answers who may be told
// secrets.
func findSocket(places []string) (string, error) {
	stale, doubts := "", error(nil)
	for _, path := range places {
		err := checkSocket(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			doubts = errors.Join(doubts, err)
		case isStale(path):
			stale = path
		default:
			return path, nil
		}
	}
	switch {
	case stale != "":
		return stale, nil // whose error says that nobody answers there
	case doubts != nil:
		return "", fmt.Errorf("%w: %w", errNoNode, doubts)
	}
	return "", fmt.Errorf("%w: there is none of %s", errNoNode, strings.Join(places, ", "))
}

// isStale reports whether the process that made a socket has gone.
func isStale(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	c.Close()
	return false
}

// checkSocket refuses a socket that another user may have put where one is looked
// for: what is told to a node, such as an auth key, is not for everybody.
func checkSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is no socket", path)
	case !isOurs(info), folder.Mode().Perm()&0o022 != 0 && folder.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("%s may be another user's: if you trust it, name it by --socket", path)
	}
	return nil
}
