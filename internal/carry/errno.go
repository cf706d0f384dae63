package carry

import (
	"errors"
	"syscall"
)

// IsErrno reports whether err is an error of the system, by its number on Unix;
// Windows may have another one of its own for it.
func IsErrno(err error, number syscall.Errno) bool {
	if errors.Is(err, number) {
		return true
	}
	own, ok := winsock[number]
	return ok && errors.Is(err, own)
}
