//go:build !linux && !windows && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package host

import (
	"context"
	"errors"
	"fmt"
)

func defaultRoute() (Route, error) {
	return Route{}, fmt.Errorf("host: default route: %w", errors.ErrUnsupported)
}

// Watch returns errors.ErrUnsupported: this system does not tell of changes.
func (OS) Watch(context.Context, func()) error {
	return fmt.Errorf("host: watch for changes: %w", errors.ErrUnsupported)
}
