package wireguard

import (
	"slices"
	"time"
)

// Order keeping (WG-99 to WG-102).
const (
	firstHold = 10 * time.Millisecond // wait for a packet that is missing, before any was late
	maxHold   = 20 * time.Millisecond // longest wait
	holdSlack = 2 * time.Millisecond  // waited for longer than packets were late
	maxMissed = 16                    // waits in vain, one after the other: the path loses, it keeps order
	heldFor   = 30 * time.Second      // without use, before the memory is given back

	maxHeld = 4 << 20  // bytes of packets that wait, per keypair
	minHeld = 64 << 10 // bytes allocated first
	maxGaps = 8        // latest gaps, to learn how late packets are
)

// An order brings the packets of a keypair into the order of their counters: what
// comes after a gap waits for what is missing, for about as long as packets were
// late on this path. Once waiting was in vain for many times it only notes gaps,
// until a packet is late again. It belongs to who holds the keypair's receive lock.
type order struct {
	next      uint64 // counter after the greatest that was passed on or given up
	shut      bool   // nothing may wait any more
	*disorder        // made at the first gap
}

// A disorder is what there is to know once counters were left out.
type disorder struct {
	gaps [maxGaps]gap
	gap  int // that is replaced next

	hold   Tick // how long to wait; 0 = not at all
	missed int  // waits in vain since a packet was late
	until  Tick // when the memory is given back

	held  []waiting // by counter, all of them after next; those before head are gone
	head  int
	first Tick   // when the earliest that waits came
	mem   []byte // of what waits
	used  int    // bytes of mem
	watch Tick   // when the actor looks; 0 = it does not
}

// A gap is a range of counters that had not come when a later one did.
type gap struct {
	from, to uint64
	at       Tick
}

// A waiting packet is one behind a gap, or the place of one that did not wait.
type waiting struct {
	counter uint64
	at      Tick // of arrival
	off, n  int  // its plaintext in mem; n 0 = nothing
}

// waits reports whether packets wait.
func (q *order) waits() bool { return q.disorder != nil && q.head < len(q.held) }

// behind reports whether a packet comes too early to be passed on.
func (q *order) behind(counter uint64) bool {
	if counter <= q.next || q.shut {
		return false
	}
	if q.disorder == nil {
		q.disorder = &disorder{hold: Tick(firstHold)}
	}
	return q.hold > 0 || q.waits()
}

// passed notes that a packet was passed on that did not have to wait, and learns
// from it if it was late.
func (q *order) passed(counter uint64, now Tick) {
	if counter < q.next {
		q.learnFromGaps(counter, now)
		return
	}
	if q.waits() {
		q.learn(now-q.first, now)
	}
	q.skip(counter, now)
	q.next = counter + 1
}

// skip goes on at counter, and notes what is left out since at.
func (q *order) skip(counter uint64, at Tick) {
	if counter <= q.next || q.disorder == nil {
		return
	}
	q.gaps[q.gap] = gap{from: q.next, to: counter, at: at}
	q.gap = (q.gap + 1) % maxGaps
	q.next = counter
}

func (q *order) learnFromGaps(counter uint64, now Tick) {
	if q.disorder == nil {
		return
	}
	for _, g := range q.gaps {
		if g.from <= counter && counter < g.to {
			q.learn(now-g.at, now)
			return
		}
	}
}

// learn takes note of a packet that came late after later ones. What was later
// than may be waited for is no reason to wait: the path has changed, perhaps.
func (q *order) learn(late, now Tick) {
	if late > Tick(maxHold) {
		return
	}
	want := min(late+late/2+Tick(holdSlack), Tick(maxHold))
	if want > q.hold {
		q.hold = want
	} else {
		q.hold -= (q.hold - want) / 64
	}
	q.missed = 0
}

// room returns memory for a plaintext of n bytes to wait in; ok is false when
// there is none. more asks the engine for so many bytes. The packet need not be
// authentic yet, so the memory has an end although nothing is put there.
func (q *order) room(n int, now Tick, more func(bytes int) bool) (b []byte, ok bool) {
	if q.shut {
		return nil, false
	}
	if q.used+n > len(q.mem) || q.mem == nil {
		size := max(minHeld, 2*len(q.mem))
		if q.used+n > size || size > maxHeld || !more(size-len(q.mem)) {
			return nil, false
		}
		mem := make([]byte, size)
		copy(mem, q.mem[:q.used])
		q.mem, q.until = mem, now+Tick(heldFor)
	}
	return q.mem[q.used : q.used+n : q.used+n], true
}

// put notes a packet behind a gap. Its first n bytes, opened in what room
// returned, wait; with n 0 it has been passed on.
func (q *order) put(counter uint64, n int, now Tick) {
	if !q.waits() {
		q.first = now
	}
	i := len(q.held)
	for i > q.head && q.held[i-1].counter > counter {
		i--
	}
	q.held = slices.Insert(q.held, i, waiting{counter, now, q.used, n})
	q.used += n
	q.until = now + Tick(heldFor)
}

// giveUp ends the wait of all packets.
func (q *order) giveUp() {
	if q.waits() {
		q.skip(q.held[len(q.held)-1].counter, q.first)
	}
}

// expire ends the wait of packets that have waited for long enough, and of those
// before them. It reports whether there were any.
func (q *order) expire(now Tick) bool {
	if !q.waits() || now < q.first+q.hold {
		return false
	}
	for i := len(q.held) - 1; i >= q.head; i-- {
		if w := &q.held[i]; w.at+q.hold <= now {
			q.skip(w.counter, q.first)
			q.miss()
			return true
		}
	}
	return false
}

// miss takes note of a wait in vain.
func (q *order) miss() {
	if q.missed++; q.missed >= maxMissed {
		q.hold = 0
	}
}

// take takes out the next packet that need not wait any more; ok is false when
// there is none.
func (q *order) take() (w waiting, ok bool) {
	if q.disorder == nil {
		return w, false
	}
	if !q.waits() {
		q.held, q.head, q.used = q.held[:0], 0, 0
		return w, false
	}
	w = q.held[q.head]
	if w.counter > q.next {
		q.first = q.earliest()
		return w, false
	}
	q.head++
	q.next = max(q.next, w.counter+1)
	return w, true
}

// bytes returns the plaintext of w, borrowed until the next room.
func (q *order) bytes(w waiting) []byte { return q.mem[w.off : w.off+w.n] }

// earliest returns when the first of those that wait came.
func (q *order) earliest() Tick {
	at := q.held[q.head].at
	for _, w := range q.held[q.head:] {
		at = min(at, w.at)
	}
	return at
}

// deadline returns when there is something to do without any packet coming: the
// first packet has waited for long enough, or the memory is of no more use; 0 =
// never.
func (q *order) deadline() Tick {
	switch {
	case q.waits():
		return q.first + q.hold
	case q.disorder != nil && q.mem != nil:
		return q.until
	}
	return 0
}

// clear drops what waits and lets go of the memory, the size of which it returns.
func (q *order) clear() int {
	if q.disorder == nil {
		return 0
	}
	n := len(q.mem)
	q.mem, q.held, q.head, q.used = nil, nil, 0, 0
	return n
}

// close is clear for good.
func (q *order) close() int {
	q.shut = true
	return q.clear()
}

// watched returns when the actor looks, 0 for never.
func (q *order) watched() Tick {
	if q.disorder == nil {
		return 0
	}
	return q.watch
}
