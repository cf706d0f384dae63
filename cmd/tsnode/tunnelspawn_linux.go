package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// startIn starts a process in the network namespace of a path, ours when it is
// empty.
func startIn(namespace string, cmd *exec.Cmd) (err error) {
	if namespace == "" {
		return cmd.Start()
	}
	runtime.LockOSThread() // a thread that cannot go back ends with its goroutine
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ours.Close()
	theirs, err := os.Open(namespace)
	if err != nil {
		return fmt.Errorf("--tunnel-netns: %w: want a network namespace, as /run/netns/NAME or /proc/PID/ns/net", err)
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("--tunnel-netns %s: %w: want a network namespace, and CAP_SYS_ADMIN", namespace, err)
	}
	err = cmd.Start()
	if back := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); back != nil {
		return fmt.Errorf("--tunnel-netns: go back: %w", back)
	}
	runtime.UnlockOSThread()
	return err
}
