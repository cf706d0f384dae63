package proxy

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/carry"
)

// complainEvery is how often a forward logs, at most, that it cannot forward.
const complainEvery = 10 * time.Second

// A tally counts what a forward does, over all its restarts.
type tally struct {
	limit   *carry.Limit
	traffic carry.Traffic
	total   atomic.Uint64 // connections let in
	failed  atomic.Uint64 // of them and of flows, those that could not be forwarded
	last    atomic.Pointer[string]

	mute atomic.Int64 // nanoseconds of the clock until which failures are not logged
}

// fail counts a connection that could not be forwarded, and logs why unless it has
// done so just before: whoever connects again and again must not fill the log.
func (t *tally) fail(log *slog.Logger, err error, args ...any) {
	t.failed.Add(1)
	t.note(err)
	now := time.Now()
	level := slog.LevelDebug
	if until := t.mute.Load(); now.UnixNano() >= until && t.mute.CompareAndSwap(until, now.Add(complainEvery).UnixNano()) {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "cannot forward", append(args, "err", err)...)
}

// note keeps the last error, for the status.
func (t *tally) note(err error) {
	text := err.Error()
	t.last.Store(&text)
}
