package tun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

const (
	// maxFrame is the longest frame in bytes: an IP packet and what is before it
	// (VPN-42).
	maxFrame = 65535 + ipv6Header + maxVirtio

	// readMemory is what the packets of one Next may take, in bytes.
	readMemory = 256 << 10

	// maxIdle is how many frames one Next passes over that do not go to the tailnet.
	maxIdle = 64

	// logEvery is the least time between two log lines on packets that the device
	// does not take, in seconds (VPN-43).
	logEvery = 60
)

// A Device is the overlay on a descriptor: the link of a packet pipeline. Serve
// must run for Ready to be signalled.
type Device struct {
	descriptor *descriptor
	framing    Framing
	name       string
	log        *slog.Logger

	ready chan struct{} // holds one: Next may have packets
	empty chan struct{} // holds one: Next has found nothing since Serve last waited

	diverts func(pkt *packet.Outbound) bool // takes what the node answers itself; nil takes none. It does not block.

	failing sync.Once
	failed  chan struct{} // closed when the device is gone
	failure error         // why; constant then

	memory                            []byte // of the packets of Next; the reading loop's own
	read, written, malformed, refused atomic.Uint64
	logged                            atomic.Int64 // when a refusal was last logged, in Unix seconds
}

var _ dataplane.Device = (*Device)(nil)

// On returns what opens the device that file is, for node.Node.TUN; nil without one.
func On(file *os.File) func(log *slog.Logger) (dataplane.Device, error) {
	if file == nil {
		return nil
	}
	return func(log *slog.Logger) (dataplane.Device, error) { return New(file, log) }
}

// New returns the device that an open file is, which it duplicates and leaves
// open. It starts nothing. A nil logger discards.
func New(file *os.File, log *slog.Logger) (*Device, error) {
	d, framing, name, err := open(file)
	if err != nil {
		return nil, err
	}
	if err := framing.check(); err != nil {
		d.close()
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Device{
		descriptor: d, framing: framing, name: name, log: log,
		ready: make(chan struct{}, 1), empty: make(chan struct{}, 1), failed: make(chan struct{}),
		memory: make([]byte, readMemory),
	}, nil
}

// String names the actor.
func (*Device) String() string { return "tun.Device" }

// Name is that of the interface; empty when the descriptor is none's.
func (d *Device) Name() string { return d.name }

// Stats is part of dataplane.Device.
func (d *Device) Stats() dataplane.DeviceStats {
	return dataplane.DeviceStats{Read: d.read.Load(), Written: d.written.Load(), Malformed: d.malformed.Load(), Refused: d.refused.Load()}
}

// Close lets go of the descriptor. It may be called more than once.
func (d *Device) Close() error { return d.descriptor.close() }

// Serve waits for packets whenever Next has found none, until ctx ends or the
// device is gone: that ends the node with dataplane.ErrDeviceGone.
func (d *Device) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, d.descriptor.interrupt)()
	d.signal() // what a Serve before this one has missed
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-d.failed:
			return d.end(ctx)
		case <-d.empty:
		}
		switch err := d.descriptor.await(); {
		case ctx.Err() != nil:
		case errors.Is(err, os.ErrDeadlineExceeded): // meant for a Serve before this one
			d.descriptor.resume()
			d.wantPackets()
		case err != nil:
			d.fail(err)
		default:
			d.signal()
		}
	}
	return ctx.Err()
}

// end returns what Serve returns of a device that is gone: nothing special when it
// was closed because the node ends.
func (d *Device) end(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return actor.Fatal(d.failure)
}

// Attach is part of dataplane.Link: nobody waits for a loop that drains a device,
// whose queue is the kernel's.
func (*Device) Attach() (detach func()) { return func() {} }

// Ready is signalled when Next may have packets again.
func (d *Device) Ready() <-chan struct{} { return d.ready }

// Next fills b with packets that were sent into the device and returns how many;
// it does not block. They are borrowed until the next Next. One goroutine at a
// time may call it.
func (d *Device) Next(b []packet.Outbound) int {
	n, idle := 0, 0
	for memory := d.memory; n < len(b) && len(memory) >= maxFrame; {
		size, err := d.descriptor.read(memory[:maxFrame])
		switch {
		case errors.Is(err, errAgain):
			d.wantPackets()
			return n
		case err != nil:
			d.fail(err)
			return n
		}
		d.read.Add(1)
		if !d.take(memory[:size:size], &b[n]) {
			if idle++; idle == maxIdle {
				break
			}
			continue
		}
		n, memory = n+1, memory[size:]
	}
	if n == 0 {
		d.signal() // there may be more behind what was passed over
	}
	return n
}

// take describes the packet of a frame, and reports whether it goes to the tailnet.
func (d *Device) take(frame []byte, out *packet.Outbound) bool {
	if d.framing.Parse(frame, out) != nil {
		d.malformed.Add(1)
		return false
	}
	return d.diverts == nil || !d.diverts(out)
}

// Done gives the packets of the last Next back.
func (*Device) Done(int) {}

// Inject delivers one whole IP packet to the operating system, which copies it.
func (d *Device) Inject(pkt []byte) {
	if !whole(pkt) {
		return
	}
	n := d.framing.Header()
	frame := append(make([]byte, n, n+len(pkt)), pkt...)
	d.framing.Put(frame, packet.Merged{Len: len(pkt), Count: 1})
	w := newWriter(d)
	w.write(frame)
}

// signal says that Next may have packets.
func (d *Device) signal() { post(d.ready) }

// wantPackets has Serve wait for packets.
func (d *Device) wantPackets() { post(d.empty) }

func post(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail notes that the device is gone.
func (d *Device) fail(err error) {
	d.failing.Do(func() {
		d.failure = fmt.Errorf("%w: %s: %w", dataplane.ErrDeviceGone, d.label(), err)
		close(d.failed)
	})
}

// label names the device in errors.
func (d *Device) label() string {
	if d.name == "" {
		return "descriptor without a name"
	}
	return d.name
}

// refuse counts a packet that the device did not take, and logs it now and then.
func (d *Device) refuse(err error) {
	d.refused.Add(1)
	now, last := time.Now().Unix(), d.logged.Load()
	if now-last >= logEvery && d.logged.CompareAndSwap(last, now) {
		d.log.Warn("the TUN device takes no packets; is it up?", "device", d.label(), "err", err, "refused", d.refused.Load())
	}
}
