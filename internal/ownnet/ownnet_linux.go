// Package ownnet runs tests in a process, and in a network, of their own, which they
// may change. It is for tests only, and on Linux.
package ownnet

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// child is set in the environment of a process of a test's own, to the test's name.
const child = "TSNODE_TEST_AGAIN"

// Again runs the calling test again, as root of a network of its own, and reports
// whether this is that process. Where nobody may make one, or ip(8) is missing, there
// is nothing to run it on; see Unavailable.
func Again(t *testing.T) bool {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		Unavailable(t, err)
		return false
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 { // root of it, and of nothing else
		attr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	isChild, err := Process(t, attr)
	if err != nil {
		Unavailable(t, err)
	}
	return isChild
}

// Process runs the calling test again in a process of its own, with these attributes,
// and reports whether this is that process. The test fails if it does there; the error
// says that there is no such process.
func Process(t *testing.T, attr *syscall.SysProcAttr) (isChild bool, err error) {
	t.Helper()
	if os.Getenv(child) == t.Name() {
		return true, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	var pattern []string // one for each level of subtests
	for part := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+part+"$")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.run="+strings.Join(pattern, "/"))
	cmd.Env = append(os.Environ(), child+"="+t.Name())
	if os.Geteuid() != 0 {
		cmd.Env = append(cmd.Env, "CI=") // who is root there is not so outside; see Unavailable
	}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, attr
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("in a process of its own: %v\n%s", err, &out)
	} else {
		t.Logf("in a process of its own:\n%s", &out)
	}
	return false, nil
}

// Unavailable says that a test has nothing here to run on, for this reason. Where root
// runs it as a check (the environment has CI set) it fails: there it must not pass
// unseen.
func Unavailable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Geteuid() == 0 {
		t.Errorf("nothing here to run it on: %v", err)
		return
	}
	t.Logf("nothing here to run it on: %v", err)
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
