package simnet

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// An Internet is the network that everything is attached to, its name service
// and the clock. Its methods and those of all that belongs to it may be called
// from any goroutine.
type Internet struct {
	mu    sync.Mutex // guards all state of the simulation
	start time.Time
	at    int64 // now, in nanoseconds since start and never 0; as of acquire

	agenda agenda
	ready  []*parcel   // arrive before the lock is given back
	timer  *time.Timer // runs tick when the agenda's first event is due
	armed  int64       // when it fires; 0: not set
	grid   int64       // events are due at multiples of it; 0: at any time

	rand *rand.Rand
	tap  func(Packet)

	small, large []*parcel // to be used again

	core      network
	node      node // for counters of the core itself
	paths     map[[2]*port]*lane
	resolver  *Host
	names     map[string][]netip.Addr
	hosts     []*Host
	routers   []*Router
	addresses plan
	closed    bool
}

// New returns an internet with nobody on it. The seed decides what is left to
// chance.
func New(seed uint64) *Internet {
	n := &Internet{
		start: time.Now(),
		rand:  rand.New(rand.NewPCG(seed, 0)),
		paths: make(map[[2]*port]*lane),
		names: make(map[string][]netip.Addr),
	}
	n.node = node{net: n, name: "Internet"}
	n.core = newNetwork(n)
	n.startResolver()
	return n
}

// Close closes every socket, connection and listener and forgets all packets.
func (n *Internet) Close() {
	n.acquire()
	defer n.release()
	n.closed = true
	for _, h := range n.hosts {
		h.closeSockets()
	}
	n.agenda, n.ready = agenda{}, nil
	if n.timer != nil {
		n.timer.Stop()
	}
}

// SetGrid makes packets arrive, and timers of TCP fire, at the next multiple of
// d from the start on, so that many are worked off together: thousands of hosts
// cost much less so. 0, the default, is as exact as the clock.
func (n *Internet) SetGrid(d time.Duration) {
	n.acquire()
	defer n.release()
	n.grid = int64(d)
}

// SetPath sets conditions between two hosts or routers attached to the Internet
// itself, beside those of their links: distance, for example. The MTU of a path
// is DefaultMTU if it is 0.
func (n *Internet) SetPath(a, b Attached, c Conditions) {
	pa, pb := a.outside(), b.outside()
	n.acquire()
	defer n.release()
	for _, ends := range [][2]*port{{pa, pb}, {pb, pa}} {
		if l := n.paths[ends]; l != nil {
			l.set(c)
			continue
		}
		l := newLane(c)
		n.paths[ends] = &l
	}
}

// Counters returns what the core has dropped: packets to nobody.
func (n *Internet) Counters() Counters { return n.node.Counters() }

// acquire locks the simulation and reads the clock.
func (n *Internet) acquire() {
	n.mu.Lock()
	n.at = n.now()
}

func (n *Internet) now() int64 { return int64(time.Since(n.start)) + 1 }

// release unlocks the simulation after all that is due now has happened.
func (n *Internet) release() {
	n.flush()
	n.mu.Unlock()
}

// flush lets packets that nothing delays arrive and sets the timer.
func (n *Internet) flush() {
	for i := 0; i < len(n.ready); i++ {
		n.move(n.ready[i])
	}
	n.ready = n.ready[:0]
	if next := n.agenda.next(); next != 0 && !n.closed && (n.armed == 0 || next < n.armed) {
		n.arm(next)
	}
}

func (n *Internet) arm(at int64) {
	n.armed = at
	wait := max(0, time.Duration(at-n.at))
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.tick)
		return
	}
	n.timer.Reset(wait)
}

// tick runs what is due. It is the timer's function.
func (n *Internet) tick() {
	n.acquire()
	defer n.release()
	n.armed = 0
	for !n.closed && len(n.agenda.heap) > 0 && n.agenda.heap[0].due <= n.at {
		if e := n.agenda.pop(); e.p != nil {
			n.move(e.p)
		} else {
			n.expire(&e)
		}
	}
}

// later returns the time that is d from now, on the grid.
func (n *Internet) later(d time.Duration) int64 { return n.align(n.at + int64(d)) }

func (n *Internet) align(at int64) int64 {
	if n.grid > 1 {
		at = (at + n.grid - 1) / n.grid * n.grid
	}
	return at
}

// arrive lets p move on at due.
func (n *Internet) arrive(p *parcel, due int64) {
	if due <= n.at {
		n.ready = append(n.ready, p)
		return
	}
	n.agenda.push(event{due: n.align(due), p: p})
}

// move takes p one step on: into a network, or to what is attached to it.
func (n *Internet) move(p *parcel) {
	if to := p.to; to != nil {
		to.arrive(p)
		return
	}
	p.in.forward(p)
}
