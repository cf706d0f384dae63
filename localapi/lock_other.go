//go:build !linux && !darwin && !freebsd

package localapi

import "os"

// lockFile opens the file without locking it: that another process serves the
// socket shows when it answers.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, lockMode)
}
