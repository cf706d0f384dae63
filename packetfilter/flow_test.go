package packetfilter

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"unsafe"
)

// TestLeastRecentlyUsed plays random notes and look-ups on one shard and on a
// plain list kept in order of use.
func TestLeastRecentlyUsed(t *testing.T) {
	const capacity = 16
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var evicted atomic.Uint64
		table := &flowTable{seed: rng.Uint64()}
		s := &flowShard{capacity: capacity, evicted: &evicted}
		var model []flowKey // least recently used first
		index := func(k flowKey) int {
			for i := range model {
				if model[i] == k {
					return i
				}
			}
			return -1
		}
		evictions := uint64(0)
		for now := int64(1); now < 3000; now++ {
			k := flowKey{rng.Uint64N(24)}
			f := s.find(table.hash(&k), &k)
			at := index(k)
			if (f != nil) != (at >= 0) {
				t.Fatalf("seed %d, tick %d: found %v, want %v", seed, now, f != nil, at >= 0)
			}
			note := rng.IntN(2) == 0
			switch {
			case f != nil:
				f.touch(now)
				model = append(append(model[:at:at], model[at+1:]...), k)
			case note:
				s.insert(table, table.hash(&k), k, now)
				if len(model) == capacity {
					model = model[1:]
					evictions++
				}
				model = append(model, k)
			}
			if s.len() != len(model) || evicted.Load() != evictions {
				t.Fatalf("seed %d, tick %d: %d flows, %d evicted, want %d, %d", seed, now, s.len(), evicted.Load(), len(model), evictions)
			}
		}
	}
}

// TestCapacityIsAGuarantee checks that the flows used last are known, however
// the hash spreads them.
func TestCapacityIsAGuarantee(t *testing.T) {
	const capacity = 1000
	table := newFlowTable(capacity)
	for i := range uint64(20_000) {
		table.note(flowKey{i}, int64(i))
	}
	for i := uint64(19_000); i < 20_000; i++ {
		if !table.seen(flowKey{i}, 20_000) {
			t.Fatalf("flow %d of the last %d is forgotten", i, capacity)
		}
	}
	if n := table.len(); n > shards*capacity {
		t.Errorf("%d flows, more than %d", n, shards*capacity)
	}
	if got := uint64(table.len()) + table.evicted.Load(); got != 20_000 {
		t.Errorf("%d known and evicted, want 20000", got)
	}
}

// TestSmallCapacityIsRaised: at least 512 flows are remembered (SVC-23, SVC-25).
func TestSmallCapacityIsRaised(t *testing.T) {
	table := newFlowTable(1)
	for i := range uint64(DefaultFlows) {
		table.note(flowKey{i}, int64(i))
	}
	for i := range uint64(DefaultFlows) {
		if !table.seen(flowKey{i}, 1000) {
			t.Fatalf("flow %d is forgotten: SVC-23 wants %d", i, DefaultFlows)
		}
	}
	table.reset()
	if table.len() != 0 || table.seen(flowKey{1}, 1) {
		t.Error("reset left flows")
	}
	table.note(flowKey{1}, 1)
	if !table.seen(flowKey{1}, 1) {
		t.Error("after reset nothing is noted")
	}
}

func TestInsertTwice(t *testing.T) {
	var evicted atomic.Uint64
	table := &flowTable{seed: 1}
	s := &flowShard{capacity: 4, evicted: &evicted}
	k := flowKey{7}
	s.insert(table, table.hash(&k), k, 1)
	s.insert(table, table.hash(&k), k, 2) // as when two goroutines miss at once
	if s.len() != 1 || s.find(table.hash(&k), &k).used.Load() != 2 {
		t.Errorf("%d flows", s.len())
	}
}

func BenchmarkNewFlow(b *testing.B) {
	table := newFlowTable(DefaultFlows)
	var i uint64
	for b.Loop() {
		i++
		table.note(flowKey{i}, int64(i))
	}
}

// TestFlowMemory: FlowMemory has room for all that a Filter remembers.
func TestFlowMemory(t *testing.T) {
	const places = 2 * unsafe.Sizeof((*flow)(nil)) // in table and heap
	f, size := New(0), uintptr(0)
	for _, table := range []*flowTable{f.flows, f.jail} {
		for i := range table.shard {
			size += uintptr(table.shard[i].capacity) * (unsafe.Sizeof(flow{}) + places)
		}
	}
	if size > FlowMemory {
		t.Errorf("flows take %d bytes, more than %d", size, FlowMemory)
	}
}
