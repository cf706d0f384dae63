package packetfilter

import (
	"math/bits"
	"sort"
)

// An index tells which of many spans contain a point, in logarithmic time for
// each that does: a policy may have 100,000 rules, and a peer chooses what it
// sends. It is immutable.
type index[T point[T]] struct {
	spans []numbered[T] // sorted by first
	last  []T           // a tree: last[1] is the greatest last of all, leaf i is last[half+i]
	half  int           // number of leaves, a power of two
}

// A numbered span stands for something that has a number.
type numbered[T point[T]] struct {
	span[T]
	number int32
}

// newIndex takes the spans over.
func newIndex[T point[T]](spans []numbered[T]) index[T] {
	if len(spans) == 0 {
		return index[T]{}
	}
	sort.SliceStable(spans, func(i, j int) bool { return spans[i].first.less(spans[j].first) })
	half := 1 << bits.Len(uint(len(spans)-1))
	last := make([]T, 2*half)
	for i := range spans {
		last[half+i] = spans[i].last
	}
	for i := half - 1; i > 0; i-- {
		last[i] = last[2*i]
		if last[i].less(last[2*i+1]) {
			last[i] = last[2*i+1]
		}
	}
	return index[T]{spans, last, half}
}

// A cursor goes through the spans that contain a point.
type cursor[T point[T]] struct {
	index *index[T]
	point T
	at    int // span to look at next
	end   int // from here on spans begin beyond the point
}

// containing returns a cursor before the first span that contains p.
func (x *index[T]) containing(p T) cursor[T] {
	lo, hi := 0, len(x.spans)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if p.less(x.spans[mid].first) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return cursor[T]{index: x, point: p, end: lo}
}

// next returns the number of the next span; false when there is none.
func (c *cursor[T]) next() (number int32, ok bool) {
	if c.at >= c.end {
		return 0, false
	}
	i := c.index.reaching(c.at, c.point)
	if i < 0 || i >= c.end {
		c.at = c.end
		return 0, false
	}
	c.at = i + 1
	return c.index.spans[i].number, true
}

// reaching returns the first leaf from i on whose last is not before p, -1 if
// there is none.
func (x *index[T]) reaching(i int, p T) int {
	n := x.half + i
	for x.last[n].less(p) {
		for n&1 == 1 { // everything below the parent is done
			n >>= 1
		}
		if n == 0 {
			return -1
		}
		n++
	}
	for n < x.half {
		n *= 2
		if x.last[n].less(p) {
			n++
		}
	}
	return n - x.half
}
