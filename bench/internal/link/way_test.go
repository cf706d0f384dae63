package link

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// sendEvery puts numbered packets of 1000 bytes on a way, one each interval, and
// returns which come out and when.
func sendEvery(w *way, count int, interval time.Duration) (numbers []int, at []time.Duration) {
	now := time.Duration(0)
	collect := func() {
		for b := w.next(now); b != nil; b = w.next(now) {
			numbers = append(numbers, int(b[0])|int(b[1])<<8)
			at = append(at, now)
			w.release(b)
		}
	}
	for i := range count {
		for due, ok := w.due(); ok && due <= time.Duration(i)*interval; due, ok = w.due() {
			now = due
			collect()
		}
		now = time.Duration(i) * interval
		b := w.buffer()
		b[0], b[1] = byte(i), byte(i>>8)
		w.put(b[:1000], 1000, now)
	}
	for due, ok := w.due(); ok; due, ok = w.due() {
		now = due
		collect()
	}
	return numbers, at
}

func newTest(c Conditions) *way {
	w := newWay(1)
	w.set(c, 0)
	return w
}

// TestDelay: every packet comes out in order, after the delay.
func TestDelay(t *testing.T) {
	numbers, at := sendEvery(newTest(Conditions{Delay: 33 * ms}), 100, ms)
	if len(numbers) != 100 || !slices.IsSorted(numbers) {
		t.Fatalf("numbers %v", numbers)
	}
	for i, got := range at {
		if want := time.Duration(i)*ms + 33*ms; got != want {
			t.Errorf("packet %d at %v, want %v", i, got, want)
		}
	}
}

// TestLoss: the share that is lost is what was asked for, and the same packets
// are lost in every run.
func TestLoss(t *testing.T) {
	w := newTest(Conditions{Loss: 0.05})
	numbers, _ := sendEvery(w, 10_000, ms)
	if lost := w.counts.Lost; lost < 400 || lost > 600 || len(numbers) != 10_000-lost {
		t.Errorf("%d lost and %d arrived of 10,000", lost, len(numbers))
	}
	if again, _ := sendEvery(newTest(Conditions{Loss: 0.05}), 10_000, ms); !slices.Equal(numbers, again) {
		t.Error("other packets are lost in the second run")
	}
}

// TestLate: what is held back comes out by so much later, and is overtaken.
func TestLate(t *testing.T) {
	w := newTest(Conditions{Delay: 10 * ms, Late: 0.1, LateBy: 5 * ms})
	numbers, at := sendEvery(w, 1000, ms)
	late := 0
	for i, n := range numbers {
		switch at[i] - time.Duration(n)*ms {
		case 10 * ms:
		case 15 * ms:
			late++
		default:
			t.Errorf("packet %d at %v", n, at[i])
		}
	}
	if late != w.counts.Late || late < 70 || late > 130 || slices.IsSorted(numbers) || len(numbers) != 1000 {
		t.Errorf("%d of %d late, %d counted", late, len(numbers), w.counts.Late)
	}
}

// TestLateInOrder: where none overtakes, those behind wait as long as the one that
// is held back, and no longer.
func TestLateInOrder(t *testing.T) {
	w := newTest(Conditions{Delay: 10 * ms, Late: 0.02, LateBy: 5 * ms, InOrder: true})
	numbers, at := sendEvery(w, 1000, ms)
	behind := 0
	for i, n := range numbers {
		more := at[i] - time.Duration(n)*ms - 10*ms
		if more < 0 || more > 10*ms {
			t.Errorf("packet %d is %v late", n, more)
		}
		if more > 0 {
			behind++
		}
	}
	if w.counts.Late == 0 || behind < 3*w.counts.Late || !slices.IsSorted(numbers) || len(numbers) != 1000 {
		t.Errorf("%d held back, %d late, of %d", w.counts.Late, behind, len(numbers))
	}
}

// TestBursts: packets in a row are lost, at the times asked for.
func TestBursts(t *testing.T) {
	w := newTest(Conditions{Burst: 20, BurstFirst: 100 * ms, BurstEvery: 500 * ms})
	numbers, _ := sendEvery(w, 1000, ms)
	for i := range 1000 {
		lost := i >= 100 && i < 120 || i >= 600 && i < 620
		if slices.Contains(numbers, i) == lost {
			t.Errorf("packet %d: lost %v", i, !lost)
		}
	}
	if w.counts.Burst != 40 {
		t.Errorf("%d counted", w.counts.Burst)
	}
}

// TestRate: packets leave as fast as the rate allows, and those are lost that
// would wait too long.
func TestRate(t *testing.T) {
	// 1000 bytes at 4 Mbit/s take 2 ms; they come every 1 ms.
	w := newTest(Conditions{Delay: 10 * ms, Rate: 4_000_000, Queue: 20 * ms})
	numbers, at := sendEvery(w, 1000, ms)
	if w.counts.Overflow < 450 || w.counts.Overflow > 500 || len(numbers) != 1000-w.counts.Overflow {
		t.Errorf("%d too many, %d arrived", w.counts.Overflow, len(numbers))
	}
	for i := 1; i < len(at); i++ {
		if at[i]-at[i-1] < 2*ms {
			t.Fatalf("packets %d and %d are %v apart", numbers[i-1], numbers[i], at[i]-at[i-1])
		}
	}
	if longest := at[len(at)-1] - time.Duration(numbers[len(numbers)-1])*ms; longest > 32*ms {
		t.Errorf("the last packet took %v", longest)
	}
}

// TestBound: no more wait than there is room for, and what is let go is
// counted; room comes back.
func TestBound(t *testing.T) {
	w := newTest(Conditions{Delay: time.Hour})
	for range maxWaiting + 10 {
		w.put(w.buffer()[:100], 100, 0)
	}
	if w.counts.Overflow != 10 {
		t.Errorf("%d too many, want 10", w.counts.Overflow)
	}
	sent := 0
	for b := w.next(time.Hour); b != nil; b = w.next(time.Hour) {
		w.release(b)
		sent++
	}
	if sent != maxWaiting || len(w.spare) != maxWaiting+1 {
		t.Errorf("%d went out, %d buffers", sent, len(w.spare))
	}
}
