package simnet

// An event is what happens at a time: a packet arrives, or a timer fires.
type event struct {
	due int64  // nanoseconds, as Internet.at
	seq uint64 // order of events that are due together
	p   *parcel
	t   *timer
}

func (e *event) before(o *event) bool {
	return e.due < o.due || e.due == o.due && e.seq < o.seq
}

// agenda is a binary heap of events, the next one first.
type agenda struct {
	heap []event
	seq  uint64
}

// next returns when the first event is due, 0 when there is none.
func (a *agenda) next() int64 {
	if len(a.heap) == 0 {
		return 0
	}
	return a.heap[0].due
}

func (a *agenda) push(e event) {
	a.seq++
	e.seq = a.seq
	a.heap = append(a.heap, e)
	i := len(a.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(&a.heap[parent]) {
			break
		}
		a.heap[i] = a.heap[parent]
		i = parent
	}
	a.heap[i] = e
}

func (a *agenda) pop() event {
	first := a.heap[0]
	n := len(a.heap) - 1
	last := a.heap[n]
	a.heap[n] = event{}
	a.heap = a.heap[:n]
	if n == 0 {
		return first
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && a.heap[child+1].before(&a.heap[child]) {
			child++
		}
		if !a.heap[child].before(&last) {
			break
		}
		a.heap[i] = a.heap[child]
		i = child
	}
	a.heap[i] = last
	return first
}

// A timer calls fire, with the simulation locked, when it is due. Setting it
// back is cheap: the event in the agenda stays and is set anew when it comes.
type timer struct {
	fire   func()
	due    int64 // 0: stopped
	queued int64 // when the event in the agenda is due; 0: there is none
}

func (t *timer) stop()         { t.due = 0 }
func (t *timer) running() bool { return t.due != 0 }

// schedule makes t fire at due.
func (n *Internet) schedule(t *timer, due int64) {
	t.due = due
	if t.queued == 0 || due < t.queued {
		t.queued = due
		n.agenda.push(event{due: due, t: t})
	}
}

// expire runs t if the event e is still its own and nothing has set it back.
func (n *Internet) expire(e *event) {
	t := e.t
	if t.queued != e.due {
		return
	}
	t.queued = 0
	switch {
	case t.due == 0:
	case t.due > n.at:
		n.schedule(t, t.due)
	default:
		t.due = 0
		t.fire()
	}
}
