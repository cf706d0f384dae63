package wireguard

import (
	"bytes"
	"encoding/binary"
	"time"
)

// TAI64N (https://cr.yp.to/libtai/tai64.html; WG-10).
const (
	taiEpoch = 1<<62 + 10 // label of Unix time 0, in seconds

	// stampTick is the resolution of stamps in nanoseconds: the low bits are
	// cleared to hide the exact clock.
	stampTick = 1 << 24
)

// A timestamp is a TAI64N label, of seconds and nanoseconds. That of a later time is
// greater.
type timestamp [12]byte

// After reports whether s is that of a later time than t.
func (s timestamp) After(t timestamp) bool { return bytes.Compare(s[:], t[:]) > 0 }

// stampAt returns the stamp of a time.
func stampAt(t time.Time) (s timestamp) {
	return makeStamp(taiEpoch+uint64(t.Unix()), uint32(t.Nanosecond())&^(stampTick-1))
}

func makeStamp(seconds uint64, nanoseconds uint32) (s timestamp) {
	binary.BigEndian.PutUint64(s[:], seconds)
	binary.BigEndian.PutUint32(s[8:], nanoseconds)
	return s
}

// after returns the stamp one tick later.
func after(s timestamp) timestamp {
	seconds, nanoseconds := binary.BigEndian.Uint64(s[:]), binary.BigEndian.Uint32(s[8:])
	if nanoseconds += stampTick; nanoseconds >= uint32(time.Second) {
		return makeStamp(seconds+1, 0)
	}
	return makeStamp(seconds, nanoseconds)
}

// A stampClock makes stamps that strictly increase, also when the wall clock
// steps back: peers would otherwise ignore us until it catches up (WG-11).
type stampClock struct{ last timestamp }

// next returns a stamp for now, or one tick after the last if that is later.
func (c *stampClock) next(now time.Time) timestamp {
	s := stampAt(now)
	if !s.After(c.last) {
		s = after(c.last)
	}
	c.last = s
	return s
}
