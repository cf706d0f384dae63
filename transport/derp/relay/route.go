package relay

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// onSendPacket routes a packet of the client (DERP-48).
func (c *client) onSendPacket(n uint32) error {
	dst, err := c.read.in.key()
	if err != nil {
		return err
	}
	f, err := c.readPacket(c.key, n-key.Size)
	if err != nil {
		return err
	}
	c.counters.received.note(f)
	to := c.find(dst)
	switch {
	case to.to != nil:
		c.deliver(to.to, f)
	case to.via != nil:
		c.forward(to.via, dst, f)
	default:
		c.lose(to.why, dst, f)
	}
	return nil
}

// onForwardPacket delivers a packet that another relay has passed on. It goes
// no further (DERP-02).
func (c *client) onForwardPacket(n uint32) error {
	src, err := c.read.in.key()
	if err != nil {
		return err
	}
	dst, err := c.read.in.key()
	if err != nil {
		return err
	}
	f, err := c.readPacket(src, n-2*key.Size)
	if err != nil {
		return err
	}
	f.forwarded = true
	c.counters.forwardedIn.note(f)
	to := c.find(dst)
	switch {
	case to.to != nil:
		c.deliver(to.to, f)
	case to.why == DropDuplicate:
		c.lose(DropDuplicate, dst, f)
	default:
		c.lose(DropUnknownForwarded, dst, f)
	}
	return nil
}

// readPacket reads the n bytes of a packet's data.
func (c *client) readPacket(src key.NodePublic, n uint32) (*frame, error) {
	f := newFrame(src, int(n))
	if err := c.read.in.full(f.data()); err != nil {
		f.release()
		return nil, err
	}
	f.disco = derp.IsDisco(f.data())
	c.read.seen++
	if c.read.seen%sampleEvery == 0 {
		f.queued = time.Now()
	}
	return f, nil
}

// find returns the way to a key. It takes no lock while packets go to the same
// active connection as before (DERP-49).
func (c *client) find(dst key.NodePublic) route {
	r := &c.read
	if dst != r.lastKey {
		r.lastKey, r.row = dst, 0
	} else if r.row++; r.last.set != nil {
		if to := r.last.set.active.Load(); to != nil {
			return route{to: to}
		}
	}
	r.last = c.server.registry.route(dst)
	return r.last
}

// deliver queues a packet for a client.
func (c *client) deliver(to *client, f *frame) {
	dropped, why, room := to.queue.push(f, c.read.row >= patientAfter && to != c)
	if room != nil {
		c.await(room)
		dropped, why, _ = to.queue.push(f, false)
	}
	if dropped != nil {
		c.server.drop(why, to.key, dropped)
	}
}

// await waits for room in a queue, not for long.
func (c *client) await(room <-chan struct{}) {
	if c.read.wait == nil {
		c.read.wait = time.NewTimer(roomWait)
	} else {
		c.read.wait.Reset(roomWait)
	}
	select {
	case <-room:
	case <-c.read.wait.C:
	}
	c.read.wait.Stop()
}

// forward passes a packet to another relay (DERP-51).
func (c *client) forward(via Forwarder, dst key.NodePublic, f *frame) {
	c.counters.forwardOut.note(f)
	via.ForwardPacket(c.key, dst, f.data()) // what it drops it counts
	f.release()
}

// lose drops a packet that has nowhere to go. The client is told when it was a
// disco packet for a key that nobody has; others are dropped silently (DERP-47,
// DERP-71).
func (c *client) lose(why DropReason, dst key.NodePublic, f *frame) {
	if f.disco && why != DropDuplicate && c.mayTellNotHere() {
		c.queue.pushGone(dst, derp.GoneNotHere)
	}
	c.server.drop(why, dst, f)
}

func (c *client) mayTellNotHere() bool {
	if c.read.notHere == nil {
		c.read.notHere = rate.NewLimiter(notHerePerSecond, notHereBurst)
	}
	return c.read.notHere.Allow()
}
