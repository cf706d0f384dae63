package node

import (
	"context"
	"sync"
	"time"
)

// An Event is a change of the node's life that a program may act on: one of
// NeedsLogin, NeedsApproval, Starting, Running, KeyExpiring, KeyExpired,
// KeyExtended, KeyRenewed, Rejoined, TailnetLocked, ControlProblem and Stopped.
type Event interface{ event() }

// NeedsLogin says that a person must visit URL for the node to join. A renewed
// URL comes as a new event.
type NeedsLogin struct{ URL string }

// NeedsApproval says that the node has joined but an administrator of the
// tailnet must approve it.
type NeedsApproval struct{}

// Starting says that the node is registering or connecting.
type Starting struct{}

// Running says that the node is on its tailnet.
type Running struct{}

// KeyExpiring says that the node key expires at At. It comes 14 days, one day and
// one hour before that, each once; of those that are due at the start, only the
// nearest. Node.Login renews the key, an administrator can extend its life.
type KeyExpiring struct {
	At   time.Time
	Left time.Duration // until then, by the control server's clock
}

// KeyExpired says that the node key has expired: the node talks to nobody, and
// connections stand still. With an auth key it is renewed at once; otherwise
// NeedsLogin follows.
type KeyExpired struct{ At time.Time } // At is zero when it was before the start

// KeyExtended says that the node key lives until At, which is later than was
// known before; the zero time means for ever. If it had expired, connections go
// on.
type KeyExtended struct{ At time.Time }

// KeyRenewed says that a new node key has taken the place of the old one, and
// lives until At; the zero time means for ever. Connections go on.
type KeyRenewed struct{ At time.Time }

// Rejoined says that the node has joined as another one than before: the control
// server had removed it, or another person has logged in. Its addresses are
// others, and connections from the old ones have ended.
type Rejoined struct{}

// TailnetLocked says that tailnet lock is on. It comes again when more is known.
type TailnetLocked struct {
	Verified bool   // the signatures of peers are verified; until then the node talks to no peer (SVC-144)
	Sign     string // the command that signs this node, to be run where that is allowed; empty: it is signed, or nothing is verified yet
}

// ControlProblem says that the control server cannot be reached, refuses the node
// or has removed it. A node that runs goes on with the netmap it has.
type ControlProblem struct{ Err error }

// Stopped is the last event: the node was closed, Err is nil, or has ended by
// itself.
type Stopped struct{ Err error }

func (NeedsLogin) event()     {}
func (NeedsApproval) event()  {}
func (Starting) event()       {}
func (Running) event()        {}
func (KeyExpiring) event()    {}
func (KeyExpired) event()     {}
func (KeyExtended) event()    {}
func (KeyRenewed) event()     {}
func (Rejoined) event()       {}
func (TailnetLocked) event()  {}
func (ControlProblem) event() {}
func (Stopped) event()        {}

// eventBacklog is how many events a subscriber may fall behind; then the
// oldest are dropped.
const eventBacklog = 16

// events fans out Events. The zero value is ready for use.
type events struct {
	mu     sync.Mutex
	subs   map[chan Event]struct{}
	last   Event // what a new subscriber sees first
	closed bool
}

// publish sends e to all subscribers and closes their channels after Stopped.
func (s *events) publish(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.last = e
	for c := range s.subs {
		push(c, e)
	}
	if _, ok := e.(Stopped); ok {
		s.closed = true
		for c := range s.subs {
			close(c)
		}
		s.subs = nil
	}
}

// push makes room by dropping the oldest event. Only publish and subscribe
// send, under the lock.
func push(c chan Event, e Event) {
	for {
		select {
		case c <- e:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

// subscribe returns a channel of events that is closed after Stopped.
func (s *events) subscribe() chan Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan Event, eventBacklog)
	if s.last != nil {
		c <- s.last
	}
	if s.closed {
		close(c)
		return c
	}
	if s.subs == nil {
		s.subs = make(map[chan Event]struct{})
	}
	s.subs[c] = struct{}{}
	return c
}

func (s *events) unsubscribe(c chan Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.subs[c]; ok {
		delete(s.subs, c)
		close(c)
	}
}

// Events returns the node's events from now on, beginning with the newest one
// there was. The channel is closed after Stopped and when ctx ends. It does not
// start the node. A reader that falls behind loses the oldest events.
func (n *Node) Events(ctx context.Context) <-chan Event {
	c := n.events.subscribe()
	context.AfterFunc(ctx, func() { n.events.unsubscribe(c) })
	return c
}
