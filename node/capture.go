package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/packet"
)

const (
	maxCaptured  = 4 << 20     // bytes of packets that wait to be written; more are left out, and counted
	captureMode  = 0o600       // of a file: packets hold what people say
	captureName  = "tailnet"   // of the interface in a capture
	maxCaptures  = 8           // at a time
	captureEnd   = time.Second // for a pipe's reader to take the end of a capture
	captureStart = 64 << 10    // bytes of memory of each at first
)

// Capture writes the packets of the overlay to w, in the pcapng format, until ctx
// ends or w fails: what this node sends, before the packet filter, and what it
// receives, after decryption. TCP segments that travel together are one packet.
// While w is slow, packets are left out; how many is noted at the end. It starts
// the node if necessary.
func (n *Node) Capture(ctx context.Context, w io.Writer) error {
	if err := n.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.run.ended, cancel)()
	return n.run.taps.capture(ctx, w)
}

// CapturePcap writes the packets of the overlay to a file, which it makes or
// empties, until ctx ends or the node closes. It returns when the capture has
// begun. A named pipe must have a reader. See Capture.
func (n *Node) CapturePcap(ctx context.Context, pcapFile string) error {
	if err := n.Start(); err != nil {
		return err
	}
	f, err := os.OpenFile(pcapFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK, captureMode)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	c, err := n.run.taps.begin()
	if err != nil {
		f.Close()
		return err
	}
	begun := n.run.aside(func(node context.Context) {
		within, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(node, cancel)()
		defer n.run.taps.end(c)
		if err := writeFile(within, f, c); err != nil {
			n.run.log.Warn("capture has ended", "file", pcapFile, "err", err)
		}
	})
	if !begun {
		n.run.taps.end(c)
		f.Close()
		return ErrClosed
	}
	return nil
}

// writeFile writes a capture to a file until ctx ends, and closes it. A pipe whose
// reader does not read is waited for no longer then.
func writeFile(ctx context.Context, f *os.File, c *capture) error {
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Now().Add(captureEnd)) })()
	return c.write(ctx, f)
}

// taps are the captures under way.
type taps struct {
	now atomic.Pointer[dataplane.Tap] // nil while there are none: that is all the packet path asks

	mu  sync.Mutex
	all []*capture // as captures in now only: what can be reached from a node is linked with all of dataplane.Tap
}

// captures get what passes. It is immutable.
type captures []*capture

// Sent is part of dataplane.Tap.
func (all captures) Sent(pkts []packet.Outbound) {
	for _, c := range all {
		c.sent(pkts)
	}
}

// Received is part of dataplane.Tap.
func (all captures) Received(pkt []byte) {
	for _, c := range all {
		c.received(pkt)
	}
}

// capture captures until ctx ends.
func (t *taps) capture(ctx context.Context, w io.Writer) error {
	c, err := t.begin()
	if err != nil {
		return err
	}
	defer t.end(c)
	return c.write(ctx, w)
}

// begin begins a capture.
func (t *taps) begin() (*capture, error) {
	c := &capture{more: make(chan struct{}, 1), waiting: make(packet.Capture, 0, captureStart)}
	c.waiting.Begin(captureName)
	c.more <- struct{}{}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) >= maxCaptures {
		return nil, fmt.Errorf("capture: %d are under way: end one first", maxCaptures)
	}
	t.set(append(slices.Clone(t.all), c))
	return c, nil
}

// end ends a capture.
func (t *taps) end(c *capture) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(slices.DeleteFunc(slices.Clone(t.all), func(other *capture) bool { return other == c }))
}

func (t *taps) set(all []*capture) {
	t.all = all
	if len(all) == 0 {
		t.now.Store(nil)
		return
	}
	var tap dataplane.Tap = captures(all)
	t.now.Store(&tap)
}

// A capture is packets on their way to a writer.
type capture struct {
	more chan struct{} // signalled when something waits

	mu      sync.Mutex
	waiting packet.Capture // to be written
	dropped uint64
}

func (c *capture) sent(pkts []packet.Outbound) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range pkts {
		c.add(now, packet.Sent, pkts[i].Len(), pkts[i].Head, pkts[i].Body...)
	}
}

func (c *capture) received(pkt []byte) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(now, packet.Received, len(pkt), pkt)
}

// add appends a packet to what waits, if there is room. c.mu is held.
func (c *capture) add(now time.Time, way packet.Way, length int, head []byte, body ...[]byte) {
	if len(c.waiting)+packet.CapturedSize(length) > maxCaptured {
		c.dropped++
		return
	}
	c.waiting.Add(now, way, head, body...)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// take returns what waits, and how many packets are missing so far. It leaves the
// memory of before in its place.
func (c *capture) take(written packet.Capture) (waiting packet.Capture, dropped uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting = c.waiting
	c.waiting = written[:0]
	return waiting, c.dropped
}

// write writes what is captured until ctx ends, and then the rest.
func (c *capture) write(ctx context.Context, w io.Writer) error {
	var written packet.Capture
	for {
		select {
		case <-c.more:
			written, _ = c.take(written)
			if _, err := w.Write(written); err != nil {
				return fmt.Errorf("capture: %w", err)
			}
		case <-ctx.Done():
			return c.finish(w)
		}
	}
}

// finish writes what still waits, and what is missing.
func (c *capture) finish(w io.Writer) error {
	rest, dropped := c.take(nil)
	rest.End(time.Now(), dropped)
	if _, err := w.Write(rest); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}
