package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// columns returns the width of a console, in characters; 0 if it does not know. ok
// is false for what is no console.
func columns(f *os.File) (n int, ok bool) {
	handle := windows.Handle(f.Fd())
	var mode uint32
	if windows.GetConsoleMode(handle, &mode) != nil {
		return 0, false
	}
	var info windows.ConsoleScreenBufferInfo
	if windows.GetConsoleScreenBufferInfo(handle, &info) != nil {
		return 0, true // one to read from
	}
	return int(info.Window.Right-info.Window.Left) + 1, true
}
