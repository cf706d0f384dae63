package disco

import (
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A statusBook has the status of each peer that is talked to.
type statusBook = snapshot[key.NodePublic, *liveStatus]

// A liveStatus is what others may read of one peer's path.
type liveStatus struct{ now atomic.Pointer[PathStatus] }

// store publishes the status of p if it has changed.
func (l *liveStatus) store(p *peer) {
	s := PathStatus{
		Latency:    p.best.latency,
		MTU:        p.best.mtu,
		Candidates: len(p.candidates),
		LastData:   p.session.data.Truncate(time.Second),
	}
	if !p.best.isZero() {
		s.Best, s.TrustedUntil = direct(p.best.addr), p.trust
	}
	if old := l.now.Load(); old == nil || *old != s {
		changed := s
		l.now.Store(&changed)
	}
}
