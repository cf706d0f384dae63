package interop

import (
	"context"
	"testing"
	"time"
)

// eventually tries until try succeeds, and fails the test with its last error when
// limit is over.
func eventually(t *testing.T, limit time.Duration, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // real nodes cannot run in a bubble
	}
}
