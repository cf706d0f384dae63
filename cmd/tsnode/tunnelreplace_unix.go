//go:build unix && !linux

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// replace makes the descriptor of old lead to what that of next does.
func replace(next, old *os.File) error { return unix.Dup2(int(next.Fd()), int(old.Fd())) }
