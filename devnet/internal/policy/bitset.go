package policy

import (
	"iter"
	"math/bits"
)

// A bitset is a set of small numbers. Who sees whom in a tailnet of thousands is
// kept in such sets: maps would cost a hundred times as much.
type bitset []uint64

const wordBits = 64

// newBitset returns an empty set of numbers below n.
func newBitset(n int) bitset { return make(bitset, (n+wordBits-1)/wordBits) }

func (b bitset) add(i int) { b[i/wordBits] |= 1 << (i % wordBits) }

// addAll adds the numbers of o, which has the same size.
func (b bitset) addAll(o bitset) {
	for i, word := range o {
		b[i] |= word
	}
}

// all yields the numbers in ascending order.
func (b bitset) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range b {
			for ; word != 0; word &= word - 1 {
				if !yield(i*wordBits + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
