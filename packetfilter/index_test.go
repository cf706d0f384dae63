package packetfilter

import (
	"slices"
	"testing"
)

// FuzzIndex compares the index with looking at every span. The bytes are pairs
// of small numbers, so that spans meet.
func FuzzIndex(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add([]byte{1, 2}, uint8(1))
	f.Add([]byte{0, 255, 3, 3, 3, 9, 200, 255, 4, 4, 0, 0}, uint8(3))
	f.Add([]byte{9, 10, 8, 20, 7, 7, 6, 30, 5, 5, 4, 4, 3, 3}, uint8(9))
	f.Fuzz(func(t *testing.T, pairs []byte, at uint8) {
		var list []numbered[v4]
		var want []int32
		for i := 0; i+1 < len(pairs); i += 2 {
			s := span[v4]{v4(min(pairs[i], pairs[i+1])), v4(max(pairs[i], pairs[i+1]))}
			n := int32(i / 2)
			list = append(list, numbered[v4]{s, n})
			if !v4(at).less(s.first) && !s.last.less(v4(at)) {
				want = append(want, n)
			}
		}
		x := newIndex(list)
		got := numbersAt(&x, v4(at))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("spans %v contain %d: %v, want %v", x.spans, at, got, want)
		}
	})
}

// TestIndexOfExtremes: the first and the last address are points as others.
func TestIndexOfExtremes(t *testing.T) {
	const last = v4(1<<32 - 1)
	x := newIndex([]numbered[v4]{{span[v4]{0, 0}, 1}, {span[v4]{last, last}, 2}, {span[v4]{0, last}, 3}})
	for at, want := range map[v4][]int32{0: {1, 3}, 1: {3}, last: {2, 3}} {
		got := numbersAt(&x, at)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", at, got, want)
		}
	}
	var none index[v6]
	if got := numbersAt(&none, v6{}); got != nil {
		t.Errorf("the empty index contains %v", got)
	}
}

// TestIndexLooksAtFew: finding one of many spans takes steps as the logarithm of
// their number; a point chosen by an attacker costs no more.
func TestIndexLooksAtFew(t *testing.T) {
	list := make([]numbered[counted], 1<<16)
	for i := range list {
		at := counted(2 * i)
		list[i] = numbered[counted]{span[counted]{at, at}, int32(i)}
	}
	x := newIndex(list)
	for _, at := range []counted{0, 1, 1 << 16, 1<<16 + 1, 1<<17 - 2, 1<<17 - 1, 1 << 18} {
		compared = 0
		got := numbersAt(&x, at)
		if compared > 100 {
			t.Errorf("%d: %v took %d comparisons among %d spans", at, got, compared, len(list))
		}
	}
}

// A counted is a v4 that counts comparisons.
type counted v4

var compared int

func (a counted) less(b counted) bool    { compared++; return a < b }
func (a counted) follows(b counted) bool { return a-1 == b }
func (a counted) next() counted          { return a + 1 }
func (a counted) prev() counted          { return a - 1 }
func (counted) port(p uint16) counted    { return counted(p) }
