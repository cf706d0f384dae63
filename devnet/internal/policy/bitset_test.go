package policy

import (
	"slices"
	"testing"
)

func TestBitset(t *testing.T) {
	for _, want := range [][]int{nil, {0}, {63}, {64}, {0, 1, 62, 63, 64, 65, 127, 128}, {199}} {
		b, twice := newBitset(200), newBitset(200)
		for _, i := range slices.Backward(want) {
			b.add(i)
			b.add(i)
		}
		twice.add(7)
		twice.addAll(b)
		if got := slices.Collect(b.all()); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got := slices.Collect(twice.all()); len(got) != len(want)+1 || !slices.Contains(got, 7) {
			t.Errorf("with 7: %v", got)
		}
		for i := range b.all() { // may end early
			if i != want[0] {
				t.Errorf("first is %d, want %d", i, want[0])
			}
			break
		}
	}
}
