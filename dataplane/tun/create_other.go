//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Create fails: this program makes TUN devices on Linux only, and takes those that
// a front end has made elsewhere.
func Create(name string) (*os.File, error) {
	return nil, fmt.Errorf("tun: device %s: %w on %s: TUN devices are made on Linux only", name, errors.ErrUnsupported, runtime.GOOS)
}
