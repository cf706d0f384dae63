package relayd

import (
	"net"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// acceptCounts count what an acceptor has seen (DERP-84).
type acceptCounts struct {
	accepted, rejected atomic.Uint64
}

// An acceptor limits how many connections a listener accepts per second. One
// that is over the limit is closed at once and counted; the listener goes on
// (DERP-150).
type acceptor struct {
	net.Listener
	limit  *rate.Limiter
	counts *acceptCounts
}

// limited returns ln with the limit of a configuration: connections per second,
// 0 = none.
func limited(ln net.Listener, l Limits, counts *acceptCounts) net.Listener {
	limit := rate.NewLimiter(rate.Inf, 0)
	if l.AcceptLimit > 0 {
		limit = rate.NewLimiter(rate.Limit(l.AcceptLimit), l.AcceptBurst)
	}
	return &acceptor{ln, limit, counts}
}

// Accept implements net.Listener.
func (a *acceptor) Accept() (net.Conn, error) {
	for {
		c, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if a.limit.Allow() {
			a.counts.accepted.Add(1)
			return c, nil
		}
		a.counts.rejected.Add(1)
		c.Close()
	}
}
