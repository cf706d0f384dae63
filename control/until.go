package control

import "context"

// until returns a context that ends with ctx, and with cause once ch is closed.
func until(ctx context.Context, ch <-chan struct{}, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go cancelOn(ctx, ch, cancel, cause)
	return ctx, func() { cancel(nil) }
}

// cancelOn cancels a context once ch is closed.
func cancelOn(ctx context.Context, ch <-chan struct{}, cancel context.CancelCauseFunc, cause error) {
	select {
	case <-ch:
		cancel(cause)
	case <-ctx.Done():
	}
}
