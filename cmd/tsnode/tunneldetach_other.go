//go:build !unix

package main

import "os/exec"

// detach does nothing: there are no process groups here.
func detach(*exec.Cmd) {}
