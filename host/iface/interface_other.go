//go:build !linux

package iface

import (
	"errors"
	"fmt"
	"runtime"
)

// An Interface is one that this process sets up.
type Interface struct{}

// Open fails: interfaces are set up on Linux only.
func Open(name string) (*Interface, error) {
	return nil, fmt.Errorf("interface %s: %w on %s: this program sets up interfaces on Linux only", name, errors.ErrUnsupported, runtime.GOOS)
}

// Apply is never called.
func (*Interface) Apply(Settings) error { return errors.ErrUnsupported }

// Close is never called.
func (*Interface) Close() error { return nil }
