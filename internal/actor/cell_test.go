package actor

import (
	"sync"
	"testing"
	"testing/synctest"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestCell: readers see the latest value, and a Store wakes all that loaded
// the one before.
func TestCell(t *testing.T) {
	for name, c := range map[string]*Cell[int]{"new": NewCell(0), "zero": new(Cell[int])} {
		v, first := c.Load()
		_, same := c.Load()
		if v != 0 || c.Get() != 0 || isClosed(first) || first != same {
			t.Errorf("%s: starts with %d, changed: %v", name, v, isClosed(first))
		}
		c.Store(1)
		c.Store(2)
		if !isClosed(first) {
			t.Errorf("%s: a Store does not wake the reader", name)
		}
		v, second := c.Load()
		if v != 2 || isClosed(second) {
			t.Errorf("%s: holds %d, changed: %v; want 2, false", name, v, isClosed(second))
		}
		c.Store(2) // the same value is a change, too: the cell does not compare
		if !isClosed(second) {
			t.Errorf("%s: storing an equal value does not wake the reader", name)
		}
	}
}

// TestCellStoreFirst: storing into a zero Cell that nobody has read works.
func TestCellStoreFirst(t *testing.T) {
	var c Cell[string]
	c.Store("a")
	if got := c.Get(); got != "a" {
		t.Errorf("got %q", got)
	}
}

// TestCellRace: with many writers and readers no reader is left asleep on a
// value that is not the last, and each sees values of one writer in order.
func TestCellRace(t *testing.T) {
	const writers, values = 4, 200
	type value struct{ writer, n int }
	synctest.Test(t, func(t *testing.T) {
		var c Cell[value]
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				var seen [writers + 1]int
				for {
					v, changed := c.Load()
					if v.n < seen[v.writer] {
						t.Errorf("writer %d: %d after %d", v.writer, v.n, seen[v.writer])
					}
					seen[v.writer] = v.n
					if v.writer == writers {
						return
					}
					<-changed
				}
			})
		}
		var ws sync.WaitGroup
		for w := range writers {
			ws.Go(func() {
				for n := range values {
					c.Store(value{w, n})
				}
			})
		}
		ws.Wait()
		c.Store(value{writer: writers})
		wg.Wait() // a reader that missed the last value would deadlock the bubble
	})
}

// TestCellZeroRace: the first readers of a zero Cell and its first writer do
// not lose each other.
func TestCellZeroRace(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			var c Cell[int]
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for v, changed := c.Load(); v == 0; v, changed = c.Load() {
						<-changed // would deadlock the bubble if the write were missed
					}
				})
			}
			c.Store(1)
			wg.Wait()
		})
	}
}
