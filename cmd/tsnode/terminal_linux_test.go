package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A terminal is told from other character devices, and knows its width.
func TestTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) {
		t.Errorf("%s is a terminal", os.DevNull)
	}
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	if err := unix.IoctlSetWinsize(int(pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 33, Row: 5}); err != nil {
		t.Fatal(err)
	}
	if c := newConsole(pty); !c.terminal || c.columns() != 33 {
		t.Errorf("terminal %v", c.terminal)
	}
	if c := newConsole(null); c.terminal {
		t.Error("a console on no terminal")
	}
}
