//go:build !linux

package main

import (
	"fmt"
	"os/exec"
	"runtime"
)

// startIn starts a process. Namespaces are Linux's.
func startIn(namespace string, cmd *exec.Cmd) error {
	if namespace != "" {
		return &usageError{fmt.Errorf("--tunnel-netns: there are no network namespaces on %s", runtime.GOOS)}
	}
	return cmd.Start()
}
