package netstack

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	gvlog "gvisor.dev/gvisor/pkg/log"
)

// quiet takes gVisor's log from standard error, where packets of peers would
// write it. gVisor has one log for the process, so it goes to slog's default
// logger, at Debug: what it has to say of a packet is nothing to act on.
var quiet = sync.OnceFunc(func() { gvlog.SetTarget(logEmitter{}) })

// A logEmitter is where gVisor's log goes.
type logEmitter struct{}

// Emit implements gVisor's log.Emitter.
func (logEmitter) Emit(_ int, _ gvlog.Level, _ time.Time, format string, args ...any) {
	if l := slog.Default(); l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("gvisor: " + fmt.Sprintf(format, args...))
	}
}
