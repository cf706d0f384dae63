package disco

import (
	"maps"
	"net/netip"
	"sync/atomic"

	"github.com/seed94491740/tsnode/key"
)

// shards is how many parts a snapshot has: a change copies one of them.
const shards = 64

// A snapshot is a map with one writer and any number of readers, which take no
// lock.
type snapshot[K comparable, V any] struct {
	shard func(K) byte // spreads keys
	parts [shards]atomic.Pointer[map[K]V]
}

func (s *snapshot[K, V]) part(k K) *atomic.Pointer[map[K]V] { return &s.parts[s.shard(k)%shards] }

// get may be called by any goroutine.
func (s *snapshot[K, V]) get(k K) (v V, ok bool) {
	if m := s.part(k).Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

func (s *snapshot[K, V]) set(k K, v V) {
	s.change(k, func(m map[K]V) { m[k] = v })
}

func (s *snapshot[K, V]) remove(k K) {
	s.change(k, func(m map[K]V) { delete(m, k) })
}

func (s *snapshot[K, V]) change(k K, f func(map[K]V)) {
	part := s.part(k)
	m := make(map[K]V)
	if old := part.Load(); old != nil {
		m = maps.Clone(*old)
	}
	f(m)
	part.Store(&m)
}

func (s *snapshot[K, V]) clear() {
	for i := range s.parts {
		s.parts[i].Store(nil)
	}
}

// len counts the entries; for tests and the writer.
func (s *snapshot[K, V]) len() (n int) {
	for i := range s.parts {
		if m := s.parts[i].Load(); m != nil {
			n += len(*m)
		}
	}
	return n
}

// An addrBook tells which peer a UDP address was last seen to belong to. It
// serves attribution only (PATH-17, PATH-18).
type addrBook = snapshot[netip.AddrPort, key.NodePublic]

// shardOfAddr mixes the parts of an address that differ among peers.
func shardOfAddr(a netip.AddrPort) (h byte) {
	raw := a.Addr().As16()
	for _, b := range raw {
		h = h*31 + b
	}
	return h*31 + byte(a.Port()) + byte(a.Port()>>8)
}

// shardOfKey takes one byte of a key, which is random.
func shardOfKey(k key.NodePublic) byte {
	raw := k.Raw()
	return raw[1]
}
