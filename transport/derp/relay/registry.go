package relay

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/key"
)

// shards is how many locks the registry has. A lookup on the packet path takes
// one of them for reading, and none when the sender's last destination is
// still right (DERP-49).
const shards = 64

// A registry knows which connections there are for each key.
type registry [shards]shard

type shard struct {
	mu   sync.RWMutex
	sets map[key.NodePublic]*clientSet
}

// A clientSet is all connections of one key. Packets go to the active one.
type clientSet struct {
	active atomic.Pointer[client] // nil: the set has left the registry, or its connections fight

	// guarded by the shard's lock
	conns    []*client            // oldest first
	watchers map[*client]struct{} // clients that have received from this key
}

func (r *registry) init() {
	for i := range r {
		r[i].sets = make(map[key.NodePublic]*clientSet)
	}
}

// shard returns the part of the registry that holds k. Keys are random bytes,
// except that their last is below 128.
func (r *registry) shard(k key.NodePublic) *shard {
	raw := k.Raw()
	return &r[raw[0]%shards]
}

// lookup returns the connections of a key, nil for none.
func (r *registry) lookup(k key.NodePublic) *clientSet {
	sh := r.shard(k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.sets[k]
}

// add makes c the active connection of its key; older ones stay and are still
// read (DERP-43).
func (r *registry) add(c *client) {
	sh := r.shard(c.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[c.key]
	if set == nil {
		set = new(clientSet)
		sh.sets[c.key] = set
	}
	set.conns = append(set.conns, c)
	set.active.Store(c)
}

// remove takes c out; the newest that remains becomes active. If c was the last
// one, the clients that were to be told are returned.
func (r *registry) remove(c *client) []*client {
	sh := r.shard(c.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[c.key]
	set.conns = slices.DeleteFunc(set.conns, func(o *client) bool { return o == c })
	if n := len(set.conns); n > 0 {
		set.active.Store(set.conns[n-1])
		return nil
	}
	set.active.Store(nil)
	delete(sh.sets, c.key)
	watchers := make([]*client, 0, len(set.watchers))
	for w := range set.watchers {
		watchers = append(watchers, w)
	}
	return watchers
}

// watch has c told when peer leaves; false when it has left already.
func (r *registry) watch(peer key.NodePublic, c *client) bool {
	sh := r.shard(peer)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[peer]
	if set == nil {
		return false
	}
	if set.watchers == nil {
		set.watchers = make(map[*client]struct{})
	}
	set.watchers[c] = struct{}{}
	return true
}

// unwatch undoes watch.
func (r *registry) unwatch(peer key.NodePublic, c *client) {
	sh := r.shard(peer)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if set := sh.sets[peer]; set != nil {
		delete(set.watchers, c)
	}
}

// count returns the number of keys and of connections.
func (r *registry) count() (keys, conns int) {
	for i := range r {
		sh := &r[i]
		sh.mu.RLock()
		keys += len(sh.sets)
		for _, set := range sh.sets {
			conns += len(set.conns)
		}
		sh.mu.RUnlock()
	}
	return keys, conns
}
