package relay

import (
	"errors"
	"fmt"
	"slices"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// maxUpdates bounds what waits for one mesh watcher; who is further behind is
// disconnected, and starts anew when it comes back.
const maxUpdates = 1 << 20

// updateSize is the length of the longest frame of an update in bytes.
const updateSize = derp.HeaderSize + key.Size + 16 + 2 + 1

var errClosedByMesh = errors.New("a mesh peer has asked to close it")

// An update tells a mesh watcher that a peer is present, or gone.
type update struct {
	derp.PeerPresent
	gone bool
}

func (u update) append(b []byte) []byte {
	if u.gone {
		return derp.AppendPeerGone(b, u.Peer, derp.GoneDisconnected)
	}
	return derp.AppendPeerPresent(b, u.PeerPresent)
}

// present describes a client to watchers (DERP-14).
func (c *client) present() derp.PeerPresent {
	var flags derp.PresentFlags
	if c.mesh {
		flags |= derp.PresentMeshPeer
	}
	if c.prober {
		flags |= derp.PresentProber
	}
	if c.notIdeal {
		flags |= derp.PresentNotIdeal
	}
	if flags == 0 {
		flags = derp.PresentRegular
	}
	return derp.PeerPresent{Peer: c.key, Addr: c.remote, Flags: flags}
}

// broadcast tells all watchers. The lock of the peer's shard is held, so that
// each watcher learns a key's comings and goings in their order.
func (s *Server) broadcast(u update) {
	watchers := s.watchers.Load()
	if watchers == nil {
		return
	}
	for _, w := range *watchers {
		w.update(u)
	}
}

// update queues news for a watcher.
func (c *client) update(u update) {
	if full := c.queue.pushUpdate(u); full {
		c.endSoon(because(ClosedWatchFlood, fmt.Errorf("more than %d peers to tell of", maxUpdates)))
	}
}

// watch makes c a watcher: it learns who is here and then each change
// (DERP-87). A relay that is connected to itself learns nothing.
func (s *Server) watch(c *client) {
	if c.key == s.public || !s.addWatcher(c) {
		return
	}
	for i := range s.registry {
		sh := &s.registry[i]
		sh.mu.RLock()
		for _, set := range sh.sets {
			if active := set.active.Load(); active != nil {
				c.update(update{PeerPresent: active.present()})
			}
		}
		sh.mu.RUnlock()
	}
}

// addWatcher reports whether c was no watcher before.
func (s *Server) addWatcher(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.allWatchers()
	if slices.Contains(all, c) {
		return false
	}
	all = append(slices.Clone(all), c)
	s.watchers.Store(&all)
	return true
}

func (s *Server) allWatchers() []*client {
	if p := s.watchers.Load(); p != nil {
		return *p
	}
	return nil
}

// removeWatcher takes c out if it is a watcher; s.mu is held.
func (s *Server) removeWatcher(c *client) {
	if all := s.allWatchers(); slices.Contains(all, c) {
		all = slices.DeleteFunc(slices.Clone(all), func(o *client) bool { return o == c })
		s.watchers.Store(&all)
	}
}

// closePeer ends all connections of a key, without waiting for it (DERP-89).
func (s *Server) closePeer(target key.NodePublic, by *client) {
	conns := s.registry.connections(target)
	if len(conns) == 0 {
		s.log.Debug("mesh peer asks to close a peer that is not here", "peer", target, "by", by.key)
	}
	for _, c := range conns {
		c.endSoon(because(ClosedByMesh, errClosedByMesh))
	}
}
