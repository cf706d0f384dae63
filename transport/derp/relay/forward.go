package relay

import (
	"slices"

	"github.com/seed94491740/tsnode/key"
)

// A Forwarder passes packets to another relay of the region, to which a peer is
// connected (DERP-90). Its values are compared, so they are pointers mostly.
type Forwarder interface {
	// ForwardPacket must not block: what it cannot take it drops and counts.
	// data is borrowed until it returns. Its error changes nothing.
	ForwardPacket(src, dst key.NodePublic, data []byte) error
	String() string
}

// AddForwarder has packets for dst go to f while dst has no connection here. If
// there are several, the oldest is used, so that a flow stays where it is
// (DERP-91, DERP-93).
func (s *Server) AddForwarder(dst key.NodePublic, f Forwarder) {
	sh := s.registry.shard(dst)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.make(dst)
	if slices.Contains(set.via, f) {
		return
	}
	set.via = append(set.via, f)
	if len(set.via) == 2 {
		s.stats.multiCreated.Add(1)
	}
}

// RemoveForwarder undoes AddForwarder. When that was the last way to dst, those
// who have heard from it are told (DERP-92).
func (s *Server) RemoveForwarder(dst key.NodePublic, f Forwarder) {
	sh := s.registry.shard(dst)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	set := sh.sets[dst]
	if set == nil || len(set.via) == 0 {
		return
	}
	i := slices.Index(set.via, f)
	if i < 0 {
		if len(set.via) == 1 {
			s.stats.deleteOther.Add(1)
		}
		return
	}
	set.via = slices.Delete(set.via, i, i+1)
	if len(set.via) == 1 {
		s.stats.multiDeleted.Add(1)
	}
	sh.tidy(dst, set)
}
