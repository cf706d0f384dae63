package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport/derp"
)

const (
	// inFlight is how many packets are on their way at most: fewer than a relay's
	// queue for one client holds, so that a healthy one loses none (DERP-168).
	inFlight = 30
	// stall is how long nothing arrives when the rest is lost.
	stall = 2 * time.Second
	// seqSize is the length of a packet's number, in bytes.
	seqSize = 8
)

// bandwidth sends many packets from one client of the relay to another.
func (m *measurement) bandwidth(ctx context.Context) (detail string, err error) {
	f := &flow{size: m.Bandwidth.PacketSize, credit: make(chan struct{}, inFlight)}
	f.packets = (m.Bandwidth.Bytes + f.size - 1) / f.size
	err = m.withClients(ctx, m.target, m.target, func(ctx context.Context, a, b *client) error {
		f.a, f.b = a, b
		return actor.Run(ctx, f.run)
	})
	m.relay.Bandwidth = f.result()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.1f Mbit/s", m.relay.Bandwidth.BitsPerSecond/1e6), nil
}

// A flow is a stream of numbered packets from a to b.
type flow struct {
	a, b    *client
	packets int
	size    int           // bytes of a packet
	credit  chan struct{} // holds a token for each packet under way

	arrived int
	next    uint64 // number of the packet to come
	took    time.Duration
}

func (f *flow) run(ctx context.Context, g *actor.Group) error {
	g.Go(f.send)
	start := time.Now()
	quiet := time.NewTimer(stall)
	defer quiet.Stop()
	for f.next < uint64(f.packets) {
		select {
		case m := <-f.b.in:
			p, ok := m.(derp.ReceivedPacket)
			if !ok {
				continue
			}
			if err := f.onPacket(p); err != nil {
				return err
			}
			f.took = time.Since(start)
			quiet.Reset(stall)
		case <-quiet.C:
			return fmt.Errorf("nothing arrived for %v: %d of %d packets are lost", stall, f.packets-f.arrived, f.packets)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if lost := f.packets - f.arrived; lost > 0 {
		return fmt.Errorf("%d of %d packets are lost, with %d under way at most", lost, f.packets, inFlight)
	}
	return nil
}

// send sends all packets. It writes frames by itself because a client that
// keeps to the relay's limit drops packets, and what counts here is what the
// relay does.
func (f *flow) send(ctx context.Context) error {
	var frame []byte
	for n := range f.packets {
		select {
		case f.credit <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		frame = derp.AppendSendPacket(frame[:0], f.b.key, f.packet(uint64(n)))
		if err := f.a.conn.Write(frame); err != nil {
			return err
		}
	}
	return nil
}

// packet returns the packet of a number.
func (f *flow) packet(n uint64) []byte {
	b := bytes.Repeat([]byte{byte(n)}, f.size)
	binary.BigEndian.PutUint64(b, n)
	return b
}

// onPacket takes a packet that has arrived, and with it those that have not:
// packets of one sender keep their order (DERP-01).
func (f *flow) onPacket(p derp.ReceivedPacket) error {
	if p.Source != f.a.key {
		return fmt.Errorf("packet arrived with the source %v, want %v", p.Source.Short(), f.a.key.Short())
	}
	if len(p.Data) != f.size {
		return fmt.Errorf("packet arrived with %d bytes, want %d", len(p.Data), f.size)
	}
	n := binary.BigEndian.Uint64(p.Data)
	switch {
	case n >= uint64(f.packets) || !bytes.Equal(p.Data, f.packet(n)):
		return errors.New("packet arrived changed")
	case n < f.next:
		return fmt.Errorf("packet %d arrived behind packet %d", n, f.next-1)
	}
	f.arrived++
	return f.release(n)
}

// release makes way for as many packets as have arrived or are lost when packet
// n arrives.
func (f *flow) release(n uint64) error {
	for ; f.next <= n; f.next++ {
		select {
		case <-f.credit:
		default:
			return fmt.Errorf("packet %d arrived and was not sent yet", n)
		}
	}
	return nil
}

func (f *flow) result() *Flow {
	r := &Flow{Packets: f.packets, Lost: f.packets - f.arrived, Bytes: f.arrived * f.size, Seconds: f.took.Seconds()}
	if r.Seconds > 0 {
		r.BitsPerSecond = float64(r.Bytes) * 8 / r.Seconds
	}
	return r
}
