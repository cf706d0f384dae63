package relay

import (
	"log/slog"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/key"
)

// Log lines about dropped packets per second, and at once.
const (
	dropLinesPerSecond = 10
	dropLinesBurst     = 20
)

// Debug says what a server logs beside its errors, and what it does not measure
// (DERP-82). The zero Debug is for normal operation: clients come and go at
// Debug level, drops are counted only.
type Debug struct {
	Clients bool             // log at Info when clients come and go
	Probers bool             // the same for probers alone
	Drops   []key.NodePublic // log packets to these keys that are dropped, ten lines a second at most
	NoRTT   bool             // take no round trip times
}

// dropLog logs dropped packets to some keys.
type dropLog struct {
	keys  map[key.NodePublic]struct{} // nil for none
	lines *rate.Limiter
}

func newDropLog(keys []key.NodePublic) dropLog {
	if len(keys) == 0 {
		return dropLog{}
	}
	l := dropLog{keys: make(map[key.NodePublic]struct{}), lines: rate.NewLimiter(dropLinesPerSecond, dropLinesBurst)}
	for _, k := range keys {
		l.keys[k] = struct{}{}
	}
	return l
}

// drop counts a packet for dst that is not delivered, and releases it.
func (s *Server) drop(why DropReason, dst key.NodePublic, f *frame) {
	if _, ok := s.drops.keys[dst]; ok && s.drops.lines.Allow() {
		s.log.Info("relay dropped a packet", "reason", why, "src", f.src(), "dst", dst, "bytes", len(f.data()), "disco", f.disco)
	}
	s.stats.drop(why, f)
}

// levelOf returns the level at which the comings and goings of a client are
// logged.
func (s *Server) levelOf(prober bool) slog.Level {
	if s.debug.Clients || s.debug.Probers && prober {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
