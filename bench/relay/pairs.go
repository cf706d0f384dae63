package main

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/machine"
	"github.com/seed94491740/tsnode/transport/derp"
)

const (
	packetSize = 1400 // bytes of a load client's packet

	// window is how many packets of a pair are on their way at most: fewer than
	// a receiver's queue holds on either relay (DERP-52), so that none is lost.
	window = 30

	// stall is how long a pair waits for its packets before they count as lost:
	// more than a busy machine keeps a process waiting.
	stall = 3 * time.Second

	aheadBytes = 64 << 10 // that a busy client reads at once
)

// A pair is a client that sends to another.
type pair struct {
	from, to *client
	burst    []byte // frames that are written at once
	packets  int64  // in burst

	sent, received, lost atomic.Int64
	arrived              chan struct{} // holds a token when packets have arrived
}

// A crowd is pairs at one relay.
type crowd struct {
	pairs []*pair
	open  atomic.Bool // send without waiting for what is on its way
	ended chan struct{}
	done  sync.WaitGroup
}

// gather connects n pairs and lets them send.
func (f *field) gather(ctx context.Context, addr string, n int) (*crowd, error) {
	c := &crowd{ended: make(chan struct{})}
	for range n {
		p, err := f.newPair(ctx, addr)
		if err != nil {
			c.disperse()
			return nil, err
		}
		c.pairs = append(c.pairs, p)
	}
	for _, p := range c.pairs {
		c.done.Go(func() { p.send(c) })
		c.done.Go(p.receive)
	}
	return c, nil
}

// disperse disconnects all.
func (c *crowd) disperse() {
	close(c.ended)
	for _, p := range c.pairs {
		p.from.close()
		p.to.close()
	}
	c.done.Wait()
}

func (f *field) newPair(ctx context.Context, addr string) (*pair, error) {
	from, err := f.connect(ctx, addr, aheadBytes)
	if err != nil {
		return nil, err
	}
	to, err := f.connect(ctx, addr, aheadBytes)
	if err != nil {
		from.close()
		return nil, err
	}
	data := make([]byte, packetSize)
	rand.Read(data)
	p := &pair{from: from, to: to, packets: int64(f.burst), arrived: make(chan struct{}, 1)}
	for range f.burst {
		p.burst = derp.AppendSendPacket(p.burst, to.key, data)
	}
	return p, nil
}

// send writes bursts until the connection ends.
func (p *pair) send(c *crowd) {
	timer := time.NewTimer(stall)
	defer timer.Stop()
	for {
		for !c.open.Load() && p.underway()+p.packets > window {
			timer.Reset(stall)
			select {
			case <-p.arrived:
			case <-timer.C:
				p.lost.Add(p.underway())
			case <-c.ended:
				return
			}
		}
		if _, err := p.from.conn.Write(p.burst); err != nil {
			return
		}
		p.sent.Add(p.packets)
	}
}

func (p *pair) underway() int64 { return p.sent.Load() - p.received.Load() - p.lost.Load() }

// receive counts packets until the connection ends.
func (p *pair) receive() {
	for {
		t, n, err := p.to.Header()
		if err != nil {
			return
		}
		if _, err := p.to.Payload(n); err != nil {
			return
		}
		if t == derp.FrameRecvPacket {
			p.received.Add(1)
		}
		if p.to.Buffered() < derp.HeaderSize {
			select {
			case p.arrived <- struct{}{}:
			default:
			}
		}
	}
}

// counts returns how many packets each pair has received so far.
func (c *crowd) counts() []int64 {
	var all []int64
	for _, p := range c.pairs {
		all = append(all, p.received.Load())
	}
	return all
}

// totals returns what all pairs have sent and lost so far, in packets.
func (c *crowd) totals() (sent, lost int64) {
	for _, p := range c.pairs {
		sent += p.sent.Load()
		lost += p.lost.Load()
	}
	return sent, lost
}

// A traffic is what a crowd did for some time.
type traffic struct {
	packets []int64 // received by each pair
	sent    int64   // packets of all
	lost    int64   // packets of all
	seconds float64
	cpu     float64 // seconds, of the relay
}

// watch measures the crowd and the relay for a time.
func (c *crowd) watch(ctx context.Context, relay *relayProcess, length time.Duration) (t traffic, err error) {
	before, began := c.counts(), time.Now()
	sent, lost := c.totals()
	cpu, err := machine.CPU(relay.pid())
	if err != nil {
		return t, err
	}
	if err := sleep(ctx, length); err != nil {
		return t, err
	}
	after, err := machine.CPU(relay.pid())
	if err != nil {
		return t, err
	}
	t.packets, t.seconds, t.cpu = c.counts(), time.Since(began).Seconds(), (after - cpu).Seconds()
	for i := range t.packets {
		t.packets[i] -= before[i]
	}
	t.sent, t.lost = c.totals()
	t.sent, t.lost = t.sent-sent, t.lost-lost
	return t, nil
}

// bits returns how many bits of packets were delivered.
func (t traffic) bits() float64 { return float64(t.delivered()) * packetSize * 8 }

func (t traffic) delivered() (n int64) {
	for _, p := range t.packets {
		n += p
	}
	return n
}

// jain returns Jain's index of fairness of what the pairs have received: 1 when
// all have the same, 1/n when one has everything (Jain, Chiu and Hawe 1984,
// DEC-TR-301).
func (t traffic) jain() float64 {
	var sum, squares float64
	for _, p := range t.packets {
		sum += float64(p)
		squares += float64(p) * float64(p)
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(t.packets)) * squares)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
