// Package ownnet runs tests in a network of their own, which they may change. It is
// for tests only, and on Linux.
package ownnet

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// child is set in the environment of a process that has a network of its own.
const child = "TSNODE_TEST_IN_OWN_NETWORK"

// Again runs the calling test again, in another process, as root of a network of its
// own, and reports whether this is that process. Where nobody may make one, or ip(8)
// is missing, there is nothing to run it on.
func Again(t *testing.T) bool {
	t.Helper()
	if os.Getenv(child) != "" {
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Logf("no network to change here: %v", err)
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	switch {
	case errors.As(err, &exited):
		t.Errorf("in a network of its own: %v\n%s", err, out)
	case err != nil:
		t.Logf("no network to change here: %v", err)
	default:
		t.Logf("%s", out)
	}
	return false
}

// IP runs ip(8) with the words of line, and returns what it says.
func IP(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", line, err, out)
	}
	return string(out)
}
