package simnet

import "time"

// DefaultMTU is the longest IP packet of a link, in bytes, as on Ethernet.
const DefaultMTU = 1500

// Conditions are what a link does to packets, each way. The zero value carries
// every packet of up to DefaultMTU bytes at once.
type Conditions struct {
	Delay  time.Duration // of every packet
	Jitter time.Duration // up to this more, evenly spread; packets keep their order
	Loss   float64       // share of packets lost, 0 to 1

	// Reorder is the share of packets that ReorderBy holds back longer than the
	// others, so that those behind overtake them.
	Reorder   float64
	ReorderBy time.Duration

	MTU       int // bytes of the longest IP packet; 0: DefaultMTU. TCP keeps to it by itself
	Bandwidth int // bytes a second; 0: without bound
	Queue     int // bytes that wait for bandwidth before more are dropped; 0: 100 ms of it

	NoUDP bool // every UDP datagram is lost
	Down  bool // every packet is lost
}

// ideal reports whether all that a link can do to a packet is to be too short
// for it.
func (c *Conditions) ideal() bool {
	d := *c
	d.MTU = 0
	return d == Conditions{}
}

// queueTime is how long packets wait for bandwidth if Queue is 0.
const queueTime = 100 * time.Millisecond

// A lane is one direction of a link.
type lane struct {
	conditions Conditions
	ideal      bool
	mtu        int
	last       int64 // when the latest packet in order arrives
	busy       int64 // until when earlier packets take all bandwidth
}

func newLane(c Conditions) lane {
	l := lane{conditions: c, ideal: c.ideal(), mtu: c.MTU}
	if l.mtu == 0 {
		l.mtu = DefaultMTU
	}
	return l
}

// set changes the conditions; what is on the way keeps its time.
func (l *lane) set(c Conditions) {
	last := l.last
	*l = newLane(c)
	l.last = last
}

// carry returns when a packet that enters the lane at the given time leaves it,
// or what has become of it.
func (l *lane) carry(n *Internet, p *parcel, at int64) (due int64, f Fate) {
	c := &l.conditions
	switch {
	case p.proto != TCP && p.size() > l.mtu && !p.fragment:
		return 0, TooLong
	case l.ideal:
		return max(at, l.last), Sent
	case c.Down:
		return 0, Cut
	case c.NoUDP && p.proto == UDP:
		return 0, Blocked
	case c.Loss > 0 && n.rand.Float64() < c.Loss:
		return 0, Lost
	}
	due = at
	if c.Bandwidth > 0 {
		if due = l.throttle(p.size(), at); due == 0 {
			return 0, QueueFull
		}
	}
	due += int64(c.Delay)
	if c.Jitter > 0 {
		due += n.rand.Int64N(int64(c.Jitter))
	}
	due = max(due, l.last)
	l.last = due
	if c.Reorder > 0 && n.rand.Float64() < c.Reorder {
		due += int64(c.ReorderBy)
	}
	return due, Sent
}

// throttle returns when size bytes have passed, 0 if the queue is full.
func (l *lane) throttle(size int, at int64) int64 {
	c := &l.conditions
	start := max(at, l.busy)
	wait := time.Duration(start - at)
	limit := queueTime
	if c.Queue > 0 {
		limit = transferTime(c.Queue, c.Bandwidth)
	}
	if wait > limit {
		return 0
	}
	l.busy = start + int64(transferTime(size, c.Bandwidth))
	return l.busy
}

// transferTime is how long size bytes take.
func transferTime(size, bandwidth int) time.Duration {
	return time.Duration(float64(size) / float64(bandwidth) * float64(time.Second))
}
