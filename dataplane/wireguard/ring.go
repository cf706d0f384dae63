package wireguard

import (
	"sync"

	"github.com/seed94491740/tsnode/internal/actor"
)

const (
	// ringSlots is how many handshake messages may wait for the worker (WG-35).
	ringSlots = 1024

	// loadedAt is how many waiting messages mean load (WG-18).
	loadedAt = 128
)

// A ring holds copies of handshake messages between receive goroutines and the
// worker. It is allocated when it is used and freed when the worker goes. The lock
// is held for one copy of at most 148 bytes.
type ring struct {
	ready chan struct{} // one slot: the ring may hold messages

	mu          sync.Mutex
	worker      *actor.Worker // nil before the first Serve
	slots       []ringSlot
	first, used int
}

// A ringSlot is one message with its source.
type ringSlot struct {
	src *Source
	n   int
	msg [initiationSize]byte
}

func newRing() *ring { return &ring{ready: make(chan struct{}, 1)} }

// put copies a message in; it reports false when the ring is full.
func (r *ring) put(src *Source, msg []byte) bool {
	r.mu.Lock()
	if r.slots == nil {
		r.slots = make([]ringSlot, ringSlots)
	}
	if r.used == ringSlots {
		r.mu.Unlock()
		return false
	}
	s := &r.slots[(r.first+r.used)%ringSlots]
	s.src, s.n = src, copy(s.msg[:], msg)
	r.used++
	worker := r.worker
	r.mu.Unlock()
	select {
	case r.ready <- struct{}{}:
	default:
	}
	if worker != nil {
		worker.Wake()
	}
	return true
}

// serve has a worker woken for what waits and what comes.
func (r *ring) serve(worker *actor.Worker) {
	r.mu.Lock()
	r.worker = worker
	waiting := r.used > 0
	r.mu.Unlock()
	if waiting {
		worker.Wake()
	}
}

// release frees the memory if no message waits, and reports whether none does.
func (r *ring) release() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used > 0 {
		return false
	}
	r.slots, r.first = nil, 0
	return true
}

// get copies the oldest message to s; waiting is how many there were with it, 0
// when there was none.
func (r *ring) get(s *ringSlot) (waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting = r.used
	if waiting == 0 {
		return 0
	}
	*s = r.slots[r.first]
	r.slots[r.first].src = nil
	r.first = (r.first + 1) % ringSlots
	r.used--
	return waiting
}

// bytes returns the message.
func (s *ringSlot) bytes() []byte { return s.msg[:s.n] }
