package wireguard

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/seed94491740/tsnode/key"
)

// A peerTable finds peers by node key. It is a hash table with open addressing
// whose slots are atomic pointers: anyone may look up without a lock, the actor
// alone writes. Peers costs 8 bytes a slot, at most half of them used.
type peerTable struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]atomic.Pointer[Peer]] // power of two
	count atomic.Int64                           // peers
	used  int                                    // slots that are not empty; actor
}

const minPeerSlots = 16

// removedPeer marks a slot that was used: a search goes on past it.
var removedPeer = new(Peer)

func newPeerTable() *peerTable {
	t := &peerTable{seed: maphash.MakeSeed()}
	slots := make([]atomic.Pointer[Peer], minPeerSlots)
	t.slots.Store(&slots)
	return t
}

func (t *peerTable) len() int { return int(t.count.Load()) }

// get returns the peer with a node key, nil if there is none.
func (t *peerTable) get(k key.NodePublic) *Peer {
	if p, _ := t.find(k); p != nil {
		return p
	}
	return nil
}

// find returns the peer of a key with its slot, or nil with the empty slot where
// the search ended.
func (t *peerTable) find(k key.NodePublic) (*Peer, *atomic.Pointer[Peer]) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := maphash.Comparable(t.seed, k); ; i++ {
		slot := &slots[i&mask]
		p := slot.Load()
		if p == nil || p != removedPeer && p.key == k {
			return p, slot
		}
	}
}

// add enters p, whose key must not be in the table.
func (t *peerTable) add(p *Peer) {
	if 2*(t.used+1) > len(*t.slots.Load()) {
		t.rebuild()
	}
	_, slot := t.find(p.key)
	slot.Store(p)
	t.used++
	t.count.Add(1)
}

// remove takes p out; it reports whether p was in.
func (t *peerTable) remove(p *Peer) bool {
	found, slot := t.find(p.key)
	if found != p {
		return false
	}
	slot.Store(removedPeer)
	t.count.Add(-1)
	return true
}

// rebuild makes a table with room for twice the peers there are and swaps it in.
func (t *peerTable) rebuild() {
	size := minPeerSlots
	for size < 4*(t.len()+1) {
		size *= 2
	}
	slots := make([]atomic.Pointer[Peer], size)
	mask := uint64(size - 1)
	t.used = 0
	t.all(func(p *Peer) {
		i := maphash.Comparable(t.seed, p.key)
		for slots[i&mask].Load() != nil {
			i++
		}
		slots[i&mask].Store(p)
		t.used++
	})
	t.slots.Store(&slots)
}

// all calls f with every peer.
func (t *peerTable) all(f func(*Peer)) {
	slots := *t.slots.Load()
	for i := range slots {
		if p := slots[i].Load(); p != nil && p != removedPeer {
			f(p)
		}
	}
}
