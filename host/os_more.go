package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// DefaultRoute is not known here.
func (OS) DefaultRoute() (Route, error) {
	return Route{}, fmt.Errorf("host: default route: %w", errors.ErrUnsupported)
}

// Watch cannot tell.
func (OS) Watch(context.Context, func()) error {
	return fmt.Errorf("host: watch for changes: %w", errors.ErrUnsupported)
}

// Echo is not allowed.
func (OS) Echo(context.Context, netip.Addr, []byte) (time.Duration, error) {
	return 0, fmt.Errorf("host: ICMP echo: %w", errors.ErrUnsupported)
}
