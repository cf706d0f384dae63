//go:build !windows

package carry

import "syscall"

// winsock has no numbers here.
var winsock map[syscall.Errno]syscall.Errno
