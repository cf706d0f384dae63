package wireguard

// unscheduled is the heap position of a session without deadline.
const unscheduled = -1

// timers is a binary heap of sessions by their earliest deadline: one entry a
// session, one timer for all (WG-43). A session knows its place, so that its
// deadline can be changed. It belongs to the actor.
type timers struct{ heap []*session }

// first returns the earliest deadline, 0 when there is none.
func (t *timers) first() Tick {
	if len(t.heap) == 0 {
		return 0
	}
	return t.heap[0].due
}

// pop takes out a session whose deadline has come, nil when there is none.
func (t *timers) pop(now Tick) *session {
	if len(t.heap) == 0 || t.heap[0].due > now {
		return nil
	}
	s := t.heap[0]
	t.remove(s)
	return s
}

// set gives s the deadline due, 0 for none.
func (t *timers) set(s *session, due Tick) {
	switch {
	case due == 0:
		t.remove(s)
		return
	case s.timer == unscheduled:
		s.timer = len(t.heap)
		t.heap = append(t.heap, s)
	}
	s.due = due
	t.fix(s.timer)
}

// remove takes s out if it is in.
func (t *timers) remove(s *session) {
	i := s.timer
	if i == unscheduled {
		return
	}
	last := len(t.heap) - 1
	t.swap(i, last)
	t.heap[last] = nil
	t.heap = t.heap[:last]
	s.timer, s.due = unscheduled, 0
	if i < last {
		t.fix(i)
	}
}

// fix moves the session at i to where its deadline belongs.
func (t *timers) fix(i int) {
	for i > 0 && t.less(i, (i-1)/2) {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(t.heap); child++ {
			if t.less(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		t.swap(i, least)
		i = least
	}
}

func (t *timers) less(i, j int) bool { return t.heap[i].due < t.heap[j].due }

func (t *timers) swap(i, j int) {
	h := t.heap
	h[i], h[j] = h[j], h[i]
	h[i].timer, h[j].timer = i, j
}
