package node

import (
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// expiryWarnings are how long before the end of the node key KeyExpiring comes.
var expiryWarnings = [...]time.Duration{14 * 24 * time.Hour, 24 * time.Hour, time.Hour}

// expiryRecheck is how late a warning may be after the machine has slept: timers
// stand still meanwhile, the clock does not.
const expiryRecheck = time.Minute

// A keyLife follows the node key and says which events its life is worth. It does
// no I/O; its owner passes the time.
type keyLife struct {
	node    netmap.StableID // empty before the first netmap
	key     key.NodePublic  // the newest one that was good; zero: none yet
	expiry  time.Time       // zero: never
	expired bool
	warned  int // how many of expiryWarnings have passed
}

// observe takes what control knows now. A key that has ended without a netmap is
// one that the server has refused at the start.
func (l *keyLife) observe(nm *netmap.Netmap, ended bool, now time.Time) []Event {
	if nm == nil || nm.Self == nil {
		return l.onExpired(time.Time{}, ended)
	}
	self := nm.Self
	expiry := self.KeyExpiry.Time()
	if self.Expired {
		return l.onExpired(expiry, true)
	}
	at, ok := control.KeyClock(nm, now)
	stage := 0
	if ok {
		stage = stageOf(expiry, at)
	}
	before := *l
	*l = keyLife{node: self.StableID, key: self.Key, expiry: expiry, warned: stage}
	switch {
	case before.node != "" && before.node != l.node:
		return []Event{Rejoined{}}
	case before.key.IsZero() && !before.expired:
		return l.warn(0, at)
	case before.key != l.key:
		return []Event{KeyRenewed{At: expiry}}
	case before.expired, later(expiry, before.expiry):
		return []Event{KeyExtended{At: expiry}}
	case expiry.Equal(before.expiry):
		l.warned = max(stage, before.warned) // a clock that was put back repeats nothing
		return l.warn(before.warned, at)
	}
	return l.warn(0, at) // shortened
}

// onExpired notes the end of a key, once.
func (l *keyLife) onExpired(at time.Time, ended bool) []Event {
	if !ended || l.expired {
		return nil
	}
	l.expired = true
	return []Event{KeyExpired{At: at}}
}

// warn returns the nearest warning that is due, if none like it was given.
func (l *keyLife) warn(given int, at time.Time) []Event {
	if l.warned <= given {
		return nil
	}
	return []Event{KeyExpiring{At: l.expiry, Left: l.expiry.Sub(at)}}
}

// wait returns how long until observe may have a warning to give.
func (l *keyLife) wait(nm *netmap.Netmap, now time.Time) time.Duration {
	if l.expired || l.expiry.IsZero() || l.warned == len(expiryWarnings) || nm == nil {
		return time.Hour
	}
	at, ok := control.KeyClock(nm, now)
	if !ok {
		return time.Hour
	}
	return min(max(l.expiry.Sub(at)-expiryWarnings[l.warned], time.Millisecond), expiryRecheck)
}

// stageOf returns how many of expiryWarnings have passed.
func stageOf(expiry, at time.Time) (n int) {
	if expiry.IsZero() {
		return 0
	}
	for n < len(expiryWarnings) && expiry.Sub(at) <= expiryWarnings[n] {
		n++
	}
	return n
}

// later reports whether a key lives longer than before; the zero time is never.
func later(expiry, before time.Time) bool {
	return !before.IsZero() && (expiry.IsZero() || expiry.After(before))
}
