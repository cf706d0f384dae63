//go:build !linux && !darwin && !freebsd && !windows

package host

import (
	"errors"
	"fmt"
)

func setDontFragment(uintptr, bool, bool) error {
	return fmt.Errorf("host: don't fragment: %w", errors.ErrUnsupported)
}
