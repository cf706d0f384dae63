package wireguard

import (
	"encoding/binary"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
)

// TAI64N (https://cr.yp.to/libtai/tai64.html; WG-10).
const (
	taiEpoch = 1<<62 + 10 // label of Unix time 0, in seconds

	// stampTick is the resolution of stamps in nanoseconds: the low bits are
	// cleared to hide the exact clock.
	stampTick = 1 << 24
)

// stampAt returns the stamp of a time.
func stampAt(t time.Time) (s tai64n.Timestamp) {
	return makeStamp(taiEpoch+uint64(t.Unix()), uint32(t.Nanosecond())&^(stampTick-1))
}

func makeStamp(seconds uint64, nanoseconds uint32) (s tai64n.Timestamp) {
	binary.BigEndian.PutUint64(s[:], seconds)
	binary.BigEndian.PutUint32(s[8:], nanoseconds)
	return s
}

// after returns the stamp one tick later.
func after(s tai64n.Timestamp) tai64n.Timestamp {
	seconds, nanoseconds := binary.BigEndian.Uint64(s[:]), binary.BigEndian.Uint32(s[8:])
	if nanoseconds += stampTick; nanoseconds >= uint32(time.Second) {
		return makeStamp(seconds+1, 0)
	}
	return makeStamp(seconds, nanoseconds)
}

// A stampClock makes stamps that strictly increase, also when the wall clock
// steps back: peers would otherwise ignore us until it catches up (WG-11).
type stampClock struct{ last tai64n.Timestamp }

// next returns a stamp for now, or one tick after the last if that is later.
func (c *stampClock) next(now time.Time) tai64n.Timestamp {
	s := stampAt(now)
	if !s.After(c.last) {
		s = after(c.last)
	}
	c.last = s
	return s
}
