//go:build unix

package node_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
)

// A capture into a named pipe that nobody reads is refused, and waits for nobody.
func TestCaptureIntoPipe(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	me := newNode(t, tailnet, "me")
	up(t, me)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := me.CapturePcap(t.Context(), pipe); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("got %v", err)
	}
}
