package link

import (
	"math/rand/v2"
	"time"
)

const (
	// bufferSize is room for a packet in bytes, with what the device puts before
	// it: no Ethernet MTU is larger.
	bufferSize = 2 << 10

	// maxWaiting is how many packets may be under way in a lane.
	maxWaiting = 1 << 15
)

// A way is one direction of a link. It knows no clock: times are since the link
// was made, and never run backwards.
type way struct {
	conditions Conditions
	rand       *rand.Rand
	counts     Counts

	free      time.Duration // when the limited rate has passed on all there is
	held      time.Duration // until when those behind one that is held back wait
	burst     int           // packets still to be lost in a row
	nextBurst time.Duration

	prompt, late lane
	spare        [][]byte // buffers

	sent         int           // packets that went out
	lag, lagMost time.Duration // sum and most of how late they were
}

// newWay returns a way with chances of its own.
func newWay(seed uint64) *way { return &way{rand: rand.New(rand.NewPCG(seed, 0))} }

// set changes what becomes of packets from now on.
func (w *way) set(c Conditions, now time.Duration) {
	w.conditions, w.burst, w.nextBurst, w.held = c, 0, now+c.BurstFirst, 0
}

// buffer returns room for a packet that put takes.
func (w *way) buffer() []byte {
	n := len(w.spare)
	if n == 0 {
		return make([]byte, bufferSize)
	}
	b := w.spare[n-1]
	w.spare = w.spare[:n-1]
	return b
}

// put takes a packet in, of so many bytes on the wire, in a buffer that is the
// way's from now on.
func (w *way) put(b []byte, size int, now time.Duration) {
	w.counts.Packets++
	due, ok := w.passed(size, now)
	switch {
	case !ok:
		w.counts.Overflow++
	case w.inBurst(now):
		w.counts.Burst++
	case w.chance(w.conditions.Loss):
		w.counts.Lost++
	default:
		lane := &w.prompt
		if w.chance(w.conditions.Late) {
			w.counts.Late++
			due, lane = w.hold(due)
		}
		if lane.push(parcel{max(due, w.held), b}) {
			return
		}
		w.counts.Overflow++
	}
	w.release(b)
}

// hold returns when and in which lane a packet goes on that is held back.
func (w *way) hold(due time.Duration) (time.Duration, *lane) {
	due += w.conditions.LateBy
	if !w.conditions.InOrder {
		return due, &w.late
	}
	w.held = due
	return due, &w.prompt
}

// passed returns when a packet is at the other end, or that it does not get
// there because too many wait for the limited rate.
func (w *way) passed(size int, now time.Duration) (due time.Duration, ok bool) {
	c := &w.conditions
	if c.Rate == 0 {
		return now + c.Delay, true
	}
	start := max(now, w.free)
	if start-now > c.Queue {
		return 0, false
	}
	w.free = start + time.Duration(int64(size)*8*int64(time.Second)/int64(c.Rate))
	return w.free + c.Delay, true
}

// inBurst reports whether a packet is one of those lost in a row.
func (w *way) inBurst(now time.Duration) bool {
	if w.conditions.Burst == 0 {
		return false
	}
	if w.burst == 0 && now >= w.nextBurst {
		w.burst = w.conditions.Burst
		w.nextBurst += w.conditions.BurstEvery
	}
	if w.burst == 0 {
		return false
	}
	w.burst--
	return true
}

func (w *way) chance(share float64) bool { return share > 0 && w.rand.Float64() < share }

// first returns the lane whose first packet is due first, nil if none waits.
func (w *way) first() *lane {
	prompt, late := w.prompt.first(), w.late.first()
	switch {
	case late != nil && (prompt == nil || late.due < prompt.due):
		return &w.late
	case prompt != nil:
		return &w.prompt
	}
	return nil
}

// due returns when the next packet is to go out; ok is false if none waits.
func (w *way) due() (at time.Duration, ok bool) {
	l := w.first()
	if l == nil {
		return 0, false
	}
	return l.first().due, true
}

// next returns the next packet that is due, nil if none is. Its buffer must be
// released.
func (w *way) next(now time.Duration) []byte {
	l := w.first()
	if l == nil || l.first().due > now {
		return nil
	}
	p := l.pop()
	w.sent++
	w.lag += now - p.due
	w.lagMost = max(w.lagMost, now-p.due)
	return p.data
}

// release takes a buffer back.
func (w *way) release(b []byte) { w.spare = append(w.spare, b[:bufferSize]) }

// A parcel is a packet under way.
type parcel struct {
	due  time.Duration
	data []byte
}

// A lane is a bounded queue in order of time: every packet of a lane waits
// equally long.
type lane struct {
	ring       []parcel
	head, tail int // both only grow
}

func (l *lane) push(p parcel) bool {
	if l.ring == nil {
		l.ring = make([]parcel, maxWaiting)
	}
	if l.tail-l.head == len(l.ring) {
		return false
	}
	l.ring[l.tail%maxWaiting] = p
	l.tail++
	return true
}

// first returns the oldest packet, nil if there is none.
func (l *lane) first() *parcel {
	if l.head == l.tail {
		return nil
	}
	return &l.ring[l.head%maxWaiting]
}

// pop takes the oldest packet out; there must be one.
func (l *lane) pop() parcel {
	p := l.ring[l.head%maxWaiting]
	l.head++
	return p
}
