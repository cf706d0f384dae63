package actor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// A loop that turns answers at once, one that is held does not, and the error
// names it; once it turns again it answers, whoever has given up meanwhile.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hold := actor.NewPulse("test.loop"), make(chan time.Duration)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case d := <-hold:
					time.Sleep(d) // fake time
				case <-p.Asked():
				}
			}
		}()
		ask := func() error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return p.Ask(ctx)
		}
		if err := ask(); err != nil {
			t.Error(err)
		}
		hold <- 3 * time.Second
		if err := ask(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "test.loop") {
			t.Errorf("while it is held: %v", err)
		}
		began := time.Now()
		if err := ask(); err != nil || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		cancel()
	})
}
