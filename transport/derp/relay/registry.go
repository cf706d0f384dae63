package relay

import (
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// shards is how many locks the registry has. A lookup on the packet path takes
// one of them for reading, and none when the sender's last destination is
// still connected here (DERP-49).
const shards = 64

// A registry knows for each key its connections, or the relays that have one.
type registry [shards]shard

type shard struct {
	mu   sync.RWMutex
	sets map[key.NodePublic]*clientSet
}

// A clientSet is all ways to one key. Packets go to the active connection. A set
// without any way is kept for those who wait for the key to go.
type clientSet struct {
	active atomic.Pointer[client] // nil: not connected here, or its connections fight

	// guarded by the shard's lock
	dup         *duplicates[*client] // nil unless there is more than one connection
	via         []Forwarder          // oldest first
	subscribers map[*client]struct{} // clients that have received from this key; DERP-69
}

// conns returns how many connections the key has here.
func (set *clientSet) conns() int {
	switch {
	case set.dup != nil:
		return len(set.dup.members)
	case set.active.Load() != nil:
		return 1
	}
	return 0
}

// reachable reports whether there is a way to the key.
func (set *clientSet) reachable() bool { return set.conns() > 0 || len(set.via) > 0 }

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

// make returns the set of a key, a new one if need be.
func (sh *shard) make(k key.NodePublic) *clientSet {
	set := sh.sets[k]
	if set == nil {
		set = new(clientSet)
		sh.sets[k] = set
	}
	return set
}

// tidy drops a set without any way to its key and tells its subscribers. They
// are told while the lock is held, so that no packet of a later connection
// comes before the notice.
func (sh *shard) tidy(k key.NodePublic, set *clientSet) {
	if set.reachable() {
		return
	}
	delete(sh.sets, k)
	for c := range set.subscribers {
		c.queue.pushGone(k, derp.GoneDisconnected)
	}
}

// A route is where a packet goes: to a connection, else to a forwarder, else
// nowhere.
type route struct {
	set *clientSet // of the destination
	to  *client
	via Forwarder
	why DropReason // of nowhere
}

// route returns the way to a key (DERP-48).
func (r *registry) route(k key.NodePublic) route {
	sh := r.shard(k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	set := sh.sets[k]
	switch {
	case set == nil:
		return route{why: DropUnknown}
	case set.active.Load() != nil:
		return route{set: set, to: set.active.Load()}
	case set.dup != nil:
		return route{set: set, why: DropDuplicate}
	case len(set.via) == 0:
		return route{why: DropUnknown}
	}
	return route{set: set, via: set.via[0]}
}

// add makes c the active connection of its key; older ones stay and are still
// read (DERP-43, DERP-44). Watchers are told of every connection.
func (r *registry) add(c *client) {
	sh := r.shard(c.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.make(c.key)
	old := set.active.Swap(c)
	switch {
	case set.dup != nil:
		set.dup.join(c)
		c.duplicate.Store(true)
	case old != nil:
		set.dup = newDuplicates(c.server.duplicates, old, c)
		old.duplicate.Store(true)
		c.duplicate.Store(true)
	}
	if set.dup != nil {
		c.server.stats.dupConns.Add(1)
	}
	c.server.broadcast(update{PeerPresent: c.present()})
}

// heard notes a frame of a connection whose key has others (DERP-45).
func (r *registry) heard(c *client) {
	sh := r.shard(c.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if set := sh.sets[c.key]; set.dup != nil {
		set.dup.heard(c)
		set.active.Store(set.dup.active())
	}
}

// remove takes c out (DERP-46).
func (r *registry) remove(c *client) {
	sh := r.shard(c.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[c.key]
	if set.dup != nil {
		set.leave(c)
		return
	}
	set.active.Store(nil)
	c.server.broadcast(update{PeerPresent: derp.PeerPresent{Peer: c.key}, gone: true})
	sh.tidy(c.key, set)
}

// leave takes c out of several connections.
func (set *clientSet) leave(c *client) {
	single, one := set.dup.leave(c)
	if !one {
		set.active.Store(set.dup.active())
		return
	}
	single.duplicate.Store(false)
	set.dup = nil
	set.active.Store(single)
}

// subscribe has c told when peer leaves the region. When there is no way to it
// now it returns false, unless one is still to come.
func (r *registry) subscribe(peer key.NodePublic, c *client, toCome bool) bool {
	sh := r.shard(peer)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[peer]
	if !toCome && (set == nil || !set.reachable()) {
		return false
	}
	set = sh.make(peer)
	if set.subscribers == nil {
		set.subscribers = make(map[*client]struct{})
	}
	set.subscribers[c] = struct{}{}
	return true
}

// unsubscribe undoes subscribe.
func (r *registry) unsubscribe(peer key.NodePublic, c *client) {
	sh := r.shard(peer)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[peer]
	if set == nil {
		return
	}
	delete(set.subscribers, c)
	if !set.reachable() && len(set.subscribers) == 0 {
		delete(sh.sets, peer)
	}
}

// connections returns all connections of a key.
func (r *registry) connections(k key.NodePublic) []*client {
	sh := r.shard(k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	set := sh.sets[k]
	if set == nil {
		return nil
	}
	return set.appendConns(nil)
}

func (set *clientSet) appendConns(all []*client) []*client {
	if set.dup == nil {
		if c := set.active.Load(); c != nil {
			all = append(all, c)
		}
		return all
	}
	for c := range set.dup.members {
		all = append(all, c)
	}
	return all
}

// A census is how many keys and connections a registry holds.
type census struct {
	local, remote, conns int // keys with and without a connection here; connections
	dupKeys, dupConns    int
	empty                int // sets that should have been dropped
}

func (r *registry) census() (n census) {
	for i := range r {
		sh := &r[i]
		sh.mu.RLock()
		for _, set := range sh.sets {
			n.add(set)
		}
		sh.mu.RUnlock()
	}
	return n
}

func (n *census) add(set *clientSet) {
	conns := set.conns()
	n.conns += conns
	switch {
	case conns > 0:
		n.local++
	case len(set.via) > 0:
		n.remote++
	case len(set.subscribers) == 0:
		n.empty++
	}
	if set.dup != nil {
		n.dupKeys++
		n.dupConns += conns
	}
}
