package wireguard

import (
	"encoding/binary"
	"io"
	"sync/atomic"
)

// minIndexSlots is the size of a new index table (WG-30).
const minIndexSlots = 256

// An indexTable finds what a receiver index names: a keypair, or a pending
// initiation. Anyone may look up without a lock; the actor alone writes. There
// are no chains: an index whose slot is taken is not chosen, so that doubling
// the table never makes two entries collide (WG-13, WG-30).
type indexTable struct {
	random io.Reader // crypto/rand; tests script it
	slots  atomic.Pointer[[]indexSlot]
	used   int // slots taken; actor
}

// An indexSlot holds at most one of the two.
type indexSlot struct {
	keypair atomic.Pointer[keypair]
	pending atomic.Pointer[pending]
}

func newIndexTable(random io.Reader) *indexTable {
	t := &indexTable{random: random}
	slots := make([]indexSlot, minIndexSlots)
	t.slots.Store(&slots)
	return t
}

func (t *indexTable) slot(index uint32) *indexSlot {
	slots := *t.slots.Load()
	return &slots[index&uint32(len(slots)-1)]
}

// keypair returns the keypair whose local index this is, nil if there is none.
func (t *indexTable) keypair(index uint32) *keypair {
	if kp := t.slot(index).keypair.Load(); kp != nil && kp.local == index {
		return kp
	}
	return nil
}

// pending returns the initiation that awaits a response to this index, nil if
// there is none.
func (t *indexTable) pending(index uint32) *pending {
	if p := t.slot(index).pending.Load(); p != nil && p.index == index {
		return p
	}
	return nil
}

func (s *indexSlot) free() bool { return s.keypair.Load() == nil && s.pending.Load() == nil }

// choose returns a random index that is not zero and whose slot is free. The
// caller enters it before it chooses again.
func (t *indexTable) choose() uint32 {
	if 4*(t.used+1) > len(*t.slots.Load()) {
		t.double()
	}
	for {
		var b [4]byte
		if _, err := io.ReadFull(t.random, b[:]); err != nil {
			panic("wireguard: no randomness: " + err.Error()) // crypto/rand never fails
		}
		if index := binary.LittleEndian.Uint32(b[:]); index != 0 && t.slot(index).free() {
			return index
		}
	}
}

// addPending enters an initiation under a chosen index.
func (t *indexTable) addPending(p *pending) {
	t.slot(p.index).pending.Store(p)
	t.used++
}

// addKeypair enters a keypair under a chosen index, or in place of the pending
// initiation that it completes.
func (t *indexTable) addKeypair(kp *keypair) {
	s := t.slot(kp.local)
	if s.pending.Load() == nil {
		t.used++
	}
	s.keypair.Store(kp)
	s.pending.Store(nil)
}

// removePending frees the index of p if p still holds it.
func (t *indexTable) removePending(p *pending) {
	if s := t.slot(p.index); s.pending.Load() == p {
		s.pending.Store(nil)
		t.used--
	}
}

// removeKeypair frees the index of kp if kp still holds it.
func (t *indexTable) removeKeypair(kp *keypair) {
	if s := t.slot(kp.local); s.keypair.Load() == kp {
		s.keypair.Store(nil)
		t.used--
	}
}

// double makes a table of twice the size and swaps it in.
func (t *indexTable) double() {
	old := *t.slots.Load()
	slots := make([]indexSlot, 2*len(old))
	mask := uint32(len(slots) - 1)
	for i := range old {
		if kp := old[i].keypair.Load(); kp != nil {
			slots[kp.local&mask].keypair.Store(kp)
		}
		if p := old[i].pending.Load(); p != nil {
			slots[p.index&mask].pending.Store(p)
		}
	}
	t.slots.Store(&slots)
}

// sweep frees what keep refuses and every pending initiation, and counts anew.
// It is what a restarted actor does first (WG-95).
func (t *indexTable) sweep(keep func(*keypair) bool) {
	slots := *t.slots.Load()
	t.used = 0
	for i := range slots {
		slots[i].pending.Store(nil)
		switch kp := slots[i].keypair.Load(); {
		case kp == nil:
		case keep(kp):
			t.used++
		default:
			slots[i].keypair.Store(nil)
		}
	}
}

// lookup returns the keypair that a transport message's receiver index names,
// nil when it is unknown or names a pending initiation (WG-30).
func (e *Engine) lookup(index uint32) *keypair { return e.indices.keypair(index) }
