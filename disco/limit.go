package disco

import "time"

// A limit is a rate with room for a burst of one second's worth: the generic
// cell rate algorithm (ITU-T I.371 annex A).
type limit struct{ next time.Time } // when the next event is on time

// allow reports whether an event at now is within perSecond, and counts it if so.
func (l *limit) allow(now time.Time, perSecond int) bool {
	if l.next.Sub(now) >= time.Second {
		return false
	}
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Second / time.Duration(perSecond))
	return true
}
