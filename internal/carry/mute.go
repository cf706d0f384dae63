package carry

import (
	"sync/atomic"
	"time"
)

// complainEvery is how often the same is told, at most.
const complainEvery = 10 * time.Second

// A Mute keeps what happens again and again from filling the log.
type Mute struct{ until atomic.Int64 } // nanoseconds of the clock

// Pass reports whether something may be told that has happened now, and if so has
// those that follow be silent for a while.
func (m *Mute) Pass(now time.Time) bool {
	until := m.until.Load()
	return now.UnixNano() >= until && m.until.CompareAndSwap(until, now.Add(complainEvery).UnixNano())
}
