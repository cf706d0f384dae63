package node

import (
	"reflect"
	"sync"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/internal/actor"
)

// A selfInfo is what this node tells others of itself, and what it makes of
// their packets. Several parts of the node know a field of each.
type selfInfo struct {
	mu       sync.Mutex // held while one is changed
	hostinfo *actor.Cell[control.Hostinfo]
	policy   *actor.Cell[*dataplane.Policy]
}

func newSelfInfo(h control.Hostinfo) *selfInfo {
	return &selfInfo{hostinfo: actor.NewCell(h), policy: actor.NewCell(new(dataplane.Policy))}
}

// describe changes what the tailnet is told of this node. Slices are replaced,
// never written to.
func (s *selfInfo) describe(change func(*control.Hostinfo)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.hostinfo.Get()
	next := old
	if change(&next); !reflect.DeepEqual(next, old) {
		s.hostinfo.Store(next)
	}
}

// decide changes what the packet pipeline does with packets. Slices are replaced,
// never written to.
func (s *selfInfo) decide(change func(*dataplane.Policy)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.policy.Get()
	next := *old
	if change(&next); !reflect.DeepEqual(&next, old) {
		s.policy.Store(&next)
	}
}
