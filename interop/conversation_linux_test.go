package interop

import (
	"errors"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/peer"
)

const (
	// flowEvery is the time between datagrams of a conversation, and so the
	// precision of its times.
	flowEvery = 10 * time.Millisecond

	// relayTime is how long a connection to a relay may take: some round trips
	// of two last miles each, for TCP, TLS and the relay's own.
	relayTime = 500 * time.Millisecond

	lookEvery = 20 * time.Millisecond // between questions for a path

	// settleTime is how long a conversation goes on before it is judged.
	settleTime = time.Second
)

// A conversation is a UDP flow and perhaps a TCP stream from one node to the
// other's echo, and what is seen of their paths.
type conversation struct {
	*testing.T
	from, to     *peer.Process
	began        time.Time
	flow, stream uint64
}

// converseByUDP waits until the nodes know each other and starts a flow: its
// datagrams are the first packets between them.
func (a *arena) converseByUDP(from, to *peer.Process) *conversation {
	a.Helper()
	c := &conversation{T: a.T, from: from, to: to}
	c.must(acquaint(from, to))
	c.watch()
	c.began = time.Now()
	var err error
	c.flow, err = from.StartFlow(to, flowEvery)
	c.must(err)
	return c
}

// converse is converseByUDP with a stream besides.
func (a *arena) converse(from, to *peer.Process) *conversation {
	a.Helper()
	c := a.converseByUDP(from, to)
	var err error
	c.stream, err = from.StartStream(to)
	c.must(err)
	return c
}

// acquaint waits until two nodes may talk by way of their relays. A node tells
// its home region before it is connected to the relay there, which loses what
// comes too early.
func acquaint(a, b *peer.Process) error {
	if err := errors.Join(a.Await(b), b.Await(a)); err != nil {
		return err
	}
	time.Sleep(relayTime) // real nodes cannot run in a bubble
	return nil
}

func (c *conversation) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// logLosses prints when the first of the datagrams that never came were sent.
func (c *conversation) logLosses(f peer.Flow) {
	c.Helper()
	left := 20
	for i, sent := range f.Sent {
		if lost := i >= len(f.Back) || f.Back[i].IsZero(); lost && left > 0 {
			left--
			c.Logf("%7.3fs datagram %d of %d sent, no echo", sent.Sub(c.began).Seconds(), i, len(f.Sent))
		}
	}
}

// watch begins to follow the paths of both sides.
func (c *conversation) watch() {
	c.Helper()
	_, err := c.from.Watch(c.to)
	c.must(err)
	_, err = c.to.Watch(c.from)
	c.must(err)
}

// direct waits for a node to change to a direct path after a moment, and returns
// how long that took; ok is false if it does not in time.
func (c *conversation) direct(p, other *peer.Process, since time.Time, within time.Duration) (path peer.Path, took time.Duration, ok bool) {
	c.Helper()
	for {
		changes, err := p.Watch(other)
		c.must(err)
		for _, ch := range changes {
			if ch.Path.Direct.IsValid() && !ch.At.Before(since) {
				return ch.Path, ch.At.Sub(since), true
			}
		}
		if time.Since(since) > within {
			return peer.Path{}, 0, false
		}
		time.Sleep(lookEvery) // real nodes cannot run in a bubble
	}
}

// awaitDirect fails unless both sides change to a direct path in time. It
// returns what the sender found.
func (c *conversation) awaitDirect(since time.Time, within time.Duration) (path peer.Path, took time.Duration) {
	c.Helper()
	path, took, ok := c.direct(c.from, c.to, since, within)
	_, back, okBack := c.direct(c.to, c.from, since, within)
	if !ok || !okBack {
		c.fail("no direct path in %v: forth %v, back %v", within, ok, okBack)
	}
	return path, max(took, back)
}

// fail ends the test with the paths there were.
func (c *conversation) fail(format string, args ...any) {
	c.Helper()
	c.logPaths()
	c.Fatalf(format, args...)
}

// logPaths prints how the paths of both sides have changed.
func (c *conversation) logPaths() {
	c.Helper()
	for _, side := range [][2]*peer.Process{{c.from, c.to}, {c.to, c.from}} {
		changes, err := side[0].Watch(side[1])
		if err != nil {
			c.Log(err)
		}
		for _, ch := range changes {
			c.Logf("%7.3fs %s -> %s: %v", ch.At.Sub(c.began).Seconds(), side[0].Name, side[1].Name, ch.Path)
		}
	}
}

// end ends the conversation and returns what became of it. A byte of the stream
// that did not come back as it was sent fails the test.
func (c *conversation) end() (peer.Flow, peer.Stream) {
	c.Helper()
	f, err := c.from.StopFlow(c.flow, c.to)
	c.must(err)
	s, err := c.from.StopStream(c.stream)
	c.must(err)
	return f, s
}

// endWithoutLoss is end, and fails if a datagram was lost, either way, or came
// twice.
func (c *conversation) endWithoutLoss() (peer.Flow, peer.Stream) {
	c.Helper()
	f, s := c.end()
	var allowed int
	if c.from.Kind == peer.Reference || c.to.Kind == peer.Reference {
		allowed = int(referenceLoss * float64(len(f.Sent)))
	}
	there, back := f.Lost()
	if there+back > allowed || f.Duplicates > 0 {
		c.logLosses(f)
		c.fail("of %d datagrams %d were lost on the way there, %d on the way back, %d came twice", len(f.Sent), there, back, f.Duplicates)
	}
	if there+back > 0 {
		c.Logf("of %d datagrams %d were lost on the way there, %d on the way back", len(f.Sent), there, back)
	}
	return f, s
}

// referenceLoss is the share of datagrams that a reference node may lose: when
// the machine is busy, the 32 packets of its queue to a relay are soon too few.
const referenceLoss = 0.05
