package wireguard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// ms is a Tick of so many milliseconds.
func ms(n int) Tick { return Tick(n) * Tick(time.Millisecond) }

// An orderTest is an order with what it has passed on.
type orderTest struct {
	order
	now Tick
	got []uint64
}

// arrive is what an Opener does with a packet that waits if it must.
func (o *orderTest) arrive(counter uint64, now Tick) {
	o.pass(now)
	if o.behind(counter) {
		if b, ok := o.room(8, now, func(int) bool { return true }); ok {
			binary.BigEndian.PutUint64(b, counter)
			o.put(counter, 8, now)
			return
		}
		o.giveUp()
		o.take8()
	}
	o.got = append(o.got, counter)
	o.passed(counter, now)
	o.take8()
}

// pass lets time pass.
func (o *orderTest) pass(now Tick) {
	o.now = now
	if o.expire(now) {
		o.take8()
	}
}

func (o *orderTest) take8() {
	for w, ok := o.take(); ok; w, ok = o.take() {
		o.got = append(o.got, binary.BigEndian.Uint64(o.bytes(w)))
	}
}

func (o *orderTest) want(t *testing.T, want ...uint64) {
	t.Helper()
	if !slices.Equal(o.got, want) {
		t.Errorf("passed on %v, want %v", o.got, want)
	}
	o.got = nil
}

// TestOrderKeeps: WG-99, WG-100. What comes after a gap waits for the packet that
// is late, and no longer than packets have been late.
func TestOrderKeeps(t *testing.T) {
	var o orderTest
	o.arrive(0, ms(1))
	o.arrive(1, ms(1))
	o.want(t, 0, 1)
	o.arrive(3, ms(2))
	o.arrive(5, ms(3))
	o.arrive(4, ms(4))
	o.want(t)
	o.arrive(2, ms(7)) // 5 ms late
	o.want(t, 2, 3, 4, 5)
	o.arrive(7, ms(10)) // 6 is lost
	o.arrive(9, ms(14)) // 8, too
	o.pass(ms(19))
	o.want(t)
	o.pass(ms(20)) // 10 + firstHold
	o.want(t, 7)
	o.pass(ms(23))
	o.want(t)
	o.pass(ms(24))
	o.want(t, 9)
	o.arrive(6, ms(25)) // 15 ms late: waits get as long as they may
	o.want(t, 6)
	o.arrive(11, ms(30))
	o.pass(ms(49))
	o.want(t)
	o.pass(ms(50)) // maxHold
	o.want(t, 11)
}

// TestOrderGivesUp: WG-101. On a path that only loses nothing waits for long, and
// waiting begins again when a packet is late.
func TestOrderGivesUp(t *testing.T) {
	var o orderTest
	c, now := uint64(0), ms(1)
	for range maxMissed {
		c, now = c+2, now+ms(100)
		o.arrive(c, now)
		o.want(t)
		o.pass(now + Tick(firstHold))
		o.want(t, c)
	}
	o.arrive(c+2, now+ms(100))
	o.want(t, c+2) // at once
	o.arrive(c+1, now+ms(104))
	o.want(t, c+1) // late: waiting begins again
	o.arrive(c+4, now+ms(200))
	o.want(t)
	o.arrive(c+3, now+ms(204))
	o.want(t, c+3, c+4)
}

// TestOrderIgnoresWhatIsTooLate: WG-100. A packet that came by an older and longer
// path does not make others wait for as long.
func TestOrderIgnoresWhatIsTooLate(t *testing.T) {
	var o orderTest
	o.arrive(1, ms(1))
	o.pass(ms(11))
	o.arrive(0, ms(40))
	o.want(t, 1, 0)
	if o.hold != Tick(firstHold) {
		t.Errorf("packets wait %v, want %v", time.Duration(o.hold), firstHold)
	}
}

// TestOrderProperty: WG-99 to WG-101. Whatever comes, each packet is passed on
// once and none waits for longer than maxHold; where no gap was given up, all are
// in order.
func TestOrderProperty(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		type arrival struct {
			counter uint64
			at      Tick
		}
		var all []arrival
		late := rng.IntN(30) + 1
		for c := range uint64(500) {
			at := Tick(c) * ms(1) / 4
			if rng.IntN(20) == 0 {
				at += Tick(rng.Int64N(int64(ms(late))))
			}
			if rng.IntN(50) > 0 {
				all = append(all, arrival{c, at + 1})
			}
		}
		slices.SortStableFunc(all, func(a, b arrival) int { return int(a.at - b.at) })
		var o orderTest
		came := map[uint64]Tick{}
		seen := map[uint64]bool{}
		check := func() {
			for _, c := range o.got {
				if seen[c] {
					t.Fatalf("seed %d: packet %d was passed on twice", seed, c)
				}
				seen[c] = true
				if wait := o.now - came[c]; wait > Tick(maxHold)+ms(1)/4 {
					t.Fatalf("seed %d: packet %d waited %v", seed, c, time.Duration(wait))
				}
			}
			if late < 7 && !slices.IsSorted(o.got) && o.missed == 0 {
				t.Fatalf("seed %d: passed on %v", seed, o.got)
			}
			o.got = nil
		}
		for _, a := range all {
			for o.now+ms(1)/4 < a.at { // the clock of the receive goroutine
				o.pass(o.now + ms(1)/4)
				check()
			}
			came[a.counter] = a.at
			o.arrive(a.counter, a.at)
			check()
		}
		for end := o.now + Tick(maxHold); o.now < end; {
			o.pass(o.now + ms(1)/4)
			check()
		}
		if len(seen) != len(all) {
			t.Fatalf("seed %d: %d packets passed on of %d", seed, len(seen), len(all))
		}
	}
}

// TestOrderMemory: WG-102. What waits has bounded memory, of which the engine
// gives no more than it has; when it is full nothing waits, and nothing is lost.
func TestOrderMemory(t *testing.T) {
	var q order
	q.passed(0, 1)
	if !q.behind(2) {
		t.Fatal("a packet after a gap need not wait")
	}
	total, n := 0, 0
	more := func(bytes int) bool { total += bytes; return true }
	for ; ; n++ {
		b, ok := q.room(1300, 2, more)
		if !ok {
			break
		}
		q.put(uint64(2+n), len(b), 2)
	}
	if total != maxHeld || n != maxHeld/1300 {
		t.Errorf("%d packets wait in %d bytes, want %d in %d", n, total, maxHeld/1300, maxHeld)
	}
	q.giveUp()
	taken := 0
	for _, ok := q.take(); ok; _, ok = q.take() {
		taken++
	}
	if taken != n || q.waits() {
		t.Errorf("%d packets taken of %d", taken, n)
	}
	if got := q.close(); got != maxHeld {
		t.Errorf("%d bytes given back, want %d", got, maxHeld)
	}
	if _, ok := q.room(1, 2, more); ok {
		t.Error("a packet may wait under a keypair that is forgotten")
	}
}

// orderedSegment is the i-th TCP segment of a stream, with its number in it.
func orderedSegment(i int) segment {
	return segment{seq: uint32(i) * 8, payload: fmt.Appendf(nil, "%08d", i)}
}

// TestOpenKeepsOrder: WG-99. TCP is delivered in order, merged as if nothing had
// been late, and datagrams do not wait.
func TestOpenKeepsOrder(t *testing.T) {
	l := newLane(t, laneMTU)
	l.to.config.Late = l.sink
	var d [][]byte
	for i := range 8 {
		d = append(d, l.sealRaw(uint64(i), orderedSegment(i).build()))
	}
	first := l.open(d[0])
	if got := l.open(d[2], d[3]); len(first) != 1 || len(got) != 0 {
		t.Fatalf("%d packets delivered before the one that is late", len(got))
	}
	bare := segment{srcPort: 1}.build() // a bare acknowledgment of another flow
	if got := l.open(l.sealRaw(5, bare)); len(got) != 1 || !bytes.Equal(got[0].pkt, bare) {
		t.Fatalf("a bare acknowledgment waits: %+v", got)
	}
	got := l.open(d[1], d[4], d[6])
	if len(got) != 2 || got[0].m.Count != 4 || !bytes.HasSuffix(got[0].pkt, []byte("00000001000000020000000300000004")) {
		t.Errorf("got %+v, want packets 1 to 4 merged, and 6: the acknowledgment was 5", got)
	}
	if s := l.to.Stats(); s.Late != 2 || s.Held != 2 || s.HeldBytes != minHeld {
		t.Errorf("%d late, %d held, %d bytes, want 2, 2, %d", s.Late, s.Held, s.HeldBytes, minHeld)
	}
}

// TestOpenHoldsInBounds: WG-102. What the engine has no memory for does not wait,
// and what comes before it later is delivered too.
func TestOpenHoldsInBounds(t *testing.T) {
	l := newLane(t, laneMTU)
	l.to.config.Late, l.to.config.Held = l.sink, minHeld-1
	zero, one, two := l.sealRaw(0, orderedSegment(0).build()), l.sealRaw(1, orderedSegment(1).build()), l.sealRaw(2, orderedSegment(2).build())
	if got := l.open(zero, two); len(got) != 2 {
		t.Errorf("%d packets, want 2: there is no memory to wait in", len(got))
	}
	if got := l.open(one); len(got) != 1 {
		t.Errorf("%d packets, want the one that was overtaken", len(got))
	}
	if s := l.to.Stats(); s.Held != 0 || s.HoldFull != 1 || s.HeldBytes != 0 {
		t.Errorf("%d held, %d times full, %d bytes, want 0, 1, 0", s.Held, s.HoldFull, s.HeldBytes)
	}
}

// TestOpenHoldsForged: WG-99. A datagram that does not authenticate neither waits
// nor makes others wait, and one that comes twice is delivered once.
func TestOpenHoldsForged(t *testing.T) {
	l := newLane(t, laneMTU)
	l.to.config.Late = l.sink
	forged := l.sealRaw(9, orderedSegment(9).build())
	forged[len(forged)-1] ^= 1
	two := l.sealRaw(2, orderedSegment(2).build())
	one := l.sealRaw(1, orderedSegment(1).build())
	zero := l.sealRaw(0, orderedSegment(0).build())
	if got := l.open(forged, zero); len(got) != 1 {
		t.Errorf("%d packets, want the one after the forged", len(got))
	}
	got := l.open(two, two, one, one, two)
	if len(got) != 1 || got[0].m.Count != 2 {
		t.Errorf("got %+v, want packets 1 and 2", got)
	}
	if dropped(l.to, dropTag) != 1 || dropped(l.to, dropReplay) != 3 {
		t.Errorf("%d forged and %d replayed packets counted, want 1 and 3", dropped(l.to, dropTag), dropped(l.to, dropReplay))
	}
}

// TestOpenAfterForgotten: WG-102. A receive goroutine that found its keypair just
// before that was forgotten makes nothing wait there, where nobody looks.
func TestOpenAfterForgotten(t *testing.T) {
	l := newLane(t, laneMTU)
	l.to.config.Late = l.sink
	zero, two := l.sealRaw(0, orderedSegment(0).build()), l.sealRaw(2, orderedSegment(2).build())
	l.open(zero)
	l.to.shut(l.to.lookup(binary.LittleEndian.Uint32(zero[4:])))
	if got := l.open(two); len(got) != 1 || l.to.Stats().HeldBytes != 0 {
		t.Errorf("%d packets delivered, want 1; %d bytes held", len(got), l.to.Stats().HeldBytes)
	}
}

// TestActorDeliversLate: WG-102. When nothing comes after a packet that waits, the
// actor delivers it.
func TestActorDeliversLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, laneMTU)
		l.out.open.seal = mustAEAD(laneKey) // for keepalives
		l.out.open.session.current.Store(l.out.open)
		late := &recorder{peer: l.sender, verdict: PassFlow}
		l.to.config.Late = late
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.to.Serve(ctx) }()
		synctest.Wait()
		pkt := orderedSegment(1).build()
		l.opener.Open(l.src, l.sealRaw(1, pkt), 0, 0, l.to.Now())
		if got := l.flush(); len(got) != 0 {
			t.Errorf("%d packets delivered before their time", len(got))
		}
		time.Sleep(firstHold + lateGrace + time.Millisecond) // fake time
		synctest.Wait()
		if len(late.got) != 1 || !bytes.Equal(late.got[0].pkt, pkt) {
			t.Errorf("the actor delivered %+v, want the packet", late.got)
		}
		forged := l.sealRaw(9, pkt)
		forged[len(forged)-1] ^= 1
		for range 2 { // and then with memory taken for a forged packet alone
			time.Sleep(2 * heldFor) // fake time
			synctest.Wait()
			if n := l.to.Stats().HeldBytes; n != 0 {
				t.Errorf("%d bytes kept for packets that wait, want 0", n)
			}
			l.opener.Open(l.src, forged, 0, 0, l.to.Now())
			l.flush()
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve = %v", err)
		}
	})
}
