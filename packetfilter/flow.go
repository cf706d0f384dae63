package packetfilter

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/packet"
)

// DefaultFlows is how many flows are remembered at least (SVC-23).
const DefaultFlows = 512

// shards is how many tables share the flows, so that several goroutines can note
// new ones at once.
const (
	shardBits = 2
	shards    = 1 << shardBits
)

// FlowMemory is what the flows of a Filter take at most, in bytes, each with its
// places in table and heap: those with jailed peers have a table of their own.
const FlowMemory = 2 * shards * DefaultFlows * 80

// A flowKey is the 5-tuple of a flow, as the packets that come back carry it.
type flowKey [5]uint64

// keyOf returns the key of a packet that travels from src to dst.
func keyOf(h *packet.Header, src, dst netip.AddrPort) (k flowKey) {
	s, d := to6(src.Addr()), to6(dst.Addr())
	ports := uint64(src.Port())<<16 | uint64(dst.Port())
	return flowKey{s.hi, s.lo, d.hi, d.lo, ports<<16 | uint64(h.Proto)<<8 | uint64(h.Version)}
}

// A flow is one entry of the table. Only used and next change after it was
// published; readers need no lock.
type flow struct {
	key   flowKey
	used  atomic.Int64 // tick of the last packet in either direction
	next  atomic.Pointer[flow]
	stamp int64 // value of used when the entry last moved in the heap
}

// A flowTable remembers the flows that this node has begun: at least as many as
// its capacity, those used last. A known flow is found and refreshed without a
// lock or an allocation; a new one takes the lock of its shard. There is no
// expiry by time: eviction is by least recent use alone (SVC-23).
type flowTable struct {
	seed    uint64
	shard   [shards]flowShard
	evicted atomic.Uint64
}

func newFlowTable(capacity int) *flowTable {
	t := &flowTable{seed: rand.Uint64()}
	for i := range t.shard {
		// Each shard can hold the whole capacity alone, so whatever the hash
		// does, the flows used last are all there.
		t.shard[i].capacity = max(capacity, DefaultFlows)
		t.shard[i].evicted = &t.evicted
	}
	return t
}

// hash mixes the words of k with the table's secret, so that nobody outside can
// choose colliding flows.
func (t *flowTable) hash(k *flowKey) uint64 {
	h := t.seed
	for _, w := range k {
		hi, lo := bits.Mul64(h^w, 0x9e3779b97f4a7c15) // 2^64 / golden ratio
		h = hi ^ lo ^ t.seed
	}
	return h
}

// note remembers a flow, or that it was used at tick now.
func (t *flowTable) note(k flowKey, now int64) {
	h := t.hash(&k)
	s := &t.shard[h>>(64-shardBits)]
	if f := s.find(h, &k); f != nil {
		f.touch(now)
		return
	}
	s.insert(t, h, k, now)
}

// seen reports whether a flow is known, and that it was used at tick now.
func (t *flowTable) seen(k flowKey, now int64) bool {
	h := t.hash(&k)
	f := t.shard[h>>(64-shardBits)].find(h, &k)
	if f == nil {
		return false
	}
	f.touch(now)
	return true
}

// reset forgets all flows.
func (t *flowTable) reset() {
	for i := range t.shard {
		t.shard[i].reset()
	}
}

// len returns how many flows are known.
func (t *flowTable) len() (n int) {
	for i := range t.shard {
		n += t.shard[i].len()
	}
	return n
}

// touch moves used forward. Several goroutines may race; the latest tick need
// not win by more than the length of a batch.
func (f *flow) touch(now int64) {
	if f.used.Load() < now {
		f.used.Store(now)
	}
}

// A flowShard is a chained hash table with a fixed number of buckets, and a heap
// of its entries by their stamp. Readers follow the chains without a lock;
// writers hold mu.
type flowShard struct {
	capacity int
	evicted  *atomic.Uint64
	buckets  atomic.Pointer[[]atomic.Pointer[flow]] // nil until the first flow

	mu   sync.Mutex
	heap []*flow      // least stamp first
	size atomic.Int64 // its length, for readers
}

func (s *flowShard) find(h uint64, k *flowKey) *flow {
	b := s.buckets.Load()
	if b == nil {
		return nil
	}
	for f := (*b)[h&uint64(len(*b)-1)].Load(); f != nil; f = f.next.Load() {
		if f.key == *k {
			return f
		}
	}
	return nil
}

func (s *flowShard) insert(t *flowTable, h uint64, k flowKey, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.find(h, &k); f != nil { // another goroutine was first
		f.touch(now)
		return
	}
	b := s.buckets.Load()
	if b == nil {
		made := make([]atomic.Pointer[flow], 1<<bits.Len(uint(s.capacity-1)))
		b = &made
		s.buckets.Store(b)
	}
	if len(s.heap) == s.capacity {
		s.evict(t, *b)
	}
	f := &flow{key: k, stamp: now}
	f.used.Store(now)
	head := &(*b)[h&uint64(len(*b)-1)]
	f.next.Store(head.Load())
	head.Store(f)
	s.heap = append(s.heap, f)
	s.size.Store(int64(len(s.heap)))
	s.up(len(s.heap) - 1)
}

// evict forgets the flow least recently used. Stamps lag behind use; an entry at
// the top of the heap that was used since is put in its right place first.
func (s *flowShard) evict(t *flowTable, buckets []atomic.Pointer[flow]) {
	for range s.heap { // each entry is put right once at most
		f := s.heap[0]
		used := f.used.Load()
		if used == f.stamp {
			break
		}
		f.stamp = used
		s.down(0)
	}
	f := s.heap[0]
	last := len(s.heap) - 1
	s.heap[0], s.heap[last] = s.heap[last], nil
	s.heap = s.heap[:last]
	s.down(0)
	at := &buckets[t.hash(&f.key)&uint64(len(buckets)-1)]
	for at.Load() != f {
		at = &at.Load().next
	}
	at.Store(f.next.Load())
	s.evicted.Add(1)
}

func (s *flowShard) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets.Store(nil)
	s.heap = nil
	s.size.Store(0)
}

func (s *flowShard) len() int { return int(s.size.Load()) }

// up moves the i-th entry of the heap towards the top.
func (s *flowShard) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if s.heap[parent].stamp <= s.heap[i].stamp {
			return
		}
		s.heap[parent], s.heap[i] = s.heap[i], s.heap[parent]
		i = parent
	}
}

// down moves the i-th entry of the heap away from the top.
func (s *flowShard) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.heap); child++ {
			if s.heap[child].stamp < s.heap[least].stamp {
				least = child
			}
		}
		if least == i {
			return
		}
		s.heap[i], s.heap[least] = s.heap[least], s.heap[i]
		i = least
	}
}
