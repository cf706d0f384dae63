package wireguard

import "sync/atomic"

// A mailbox is what the actor is asked to do by the fast path and by callers. It
// loses nothing, unlike a bounded inbox, because one lost want would hang a
// session: it holds each session at most once (WG-34), and as many differences
// as there were changes of the network map since the actor last looked.
type mailbox struct {
	ready   chan struct{}             // one slot: something below is not empty
	dirty   atomic.Pointer[session]   // sessions with events, latest first
	taken   *session                  // rest of the list the actor is at; outlives a panic
	updates atomic.Pointer[peerPatch] // latest first
	expire  atomic.Bool               // all sessions; WG-45
}

// A peerPatch is a posted PeerDiff.
type peerPatch struct {
	diff PeerDiff
	next *peerPatch
}

// push puts a session, whose first event was just raised, on the dirty list.
func (m *mailbox) push(s *session) {
	for {
		s.dirty = m.dirty.Load()
		if m.dirty.CompareAndSwap(s.dirty, s) {
			break
		}
	}
	m.wake()
}

// next takes a session off the dirty list, nil when it is empty. The session may
// be pushed again once its events were taken, not before.
func (m *mailbox) next() *session {
	if m.taken == nil {
		m.taken = m.dirty.Swap(nil)
	}
	s := m.taken
	if s != nil {
		m.taken, s.dirty = s.dirty, nil
	}
	return s
}

// update posts a difference.
func (m *mailbox) update(d PeerDiff) {
	u := &peerPatch{diff: d}
	for {
		u.next = m.updates.Load()
		if m.updates.CompareAndSwap(u.next, u) {
			break
		}
	}
	m.wake()
}

// takeUpdates takes the posted differences, first posted first.
func (m *mailbox) takeUpdates() (ordered *peerPatch) {
	for u := m.updates.Swap(nil); u != nil; {
		next := u.next
		u.next, ordered = ordered, u
		u = next
	}
	return ordered
}

// expireAll posts that all sessions are to expire.
func (m *mailbox) expireAll() {
	m.expire.Store(true)
	m.wake()
}

// wake makes the actor look.
func (m *mailbox) wake() {
	select {
	case m.ready <- struct{}{}:
	default: // it will look anyway
	}
}
