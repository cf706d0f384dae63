package proxy

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/carry"
)

// A tally counts what a forward does, over all its restarts.
type tally struct {
	limit   *carry.Limit
	traffic carry.Traffic
	total   atomic.Uint64 // connections let in
	failed  atomic.Uint64 // of them and of flows, those that could not be forwarded
	last    atomic.Pointer[string]

	mute carry.Mute
}

// fail counts a connection that could not be forwarded, and logs why unless it has
// done so just before: whoever connects again and again must not fill the log.
func (t *tally) fail(log *slog.Logger, err error, args ...any) {
	t.failed.Add(1)
	t.note(err)
	level := slog.LevelDebug
	if t.mute.Pass(time.Now()) {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "cannot forward", append(args, "err", err)...)
}

// note keeps the last error, for the status.
func (t *tally) note(err error) {
	text := err.Error()
	t.last.Store(&text)
}
