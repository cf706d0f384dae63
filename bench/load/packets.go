package load

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

const (
	// packetBurst is how many packets are sent between looks at the clock.
	packetBurst = 16

	// pace is how long a sender with a rate sleeps when it is ahead.
	pace = 500 * time.Microsecond

	// blastGrace is how much longer than asked a blast may take before a write
	// that blocks fails.
	blastGrace = 5 * time.Second
)

// Blast asks for UDP packets to another node; the answer is Blasted, the other
// node's half Arrived.
type Blast struct {
	To     netip.Addr
	Size   int // bytes of payload
	Rate   int // packets per second; 0: as fast as it can
	Length time.Duration
}

// Blasted is what was sent.
type Blasted struct {
	Sent    int64
	Failed  int64   // writes that returned an error
	Seconds float64 // until the last packet was sent
	Stuck   float64 // seconds after that, in a write that returned at its deadline only
}

func (a *agent) blast(ctx context.Context, b Blast) (r Blasted, err error) {
	n, err := a.first()
	if err != nil {
		return r, err
	}
	c, err := n.Dial(ctx, "udp", at(b.To, packetPort))
	if err != nil {
		return r, err
	}
	defer c.Close()
	packet, began := make([]byte, b.Size), time.Now()
	c.SetWriteDeadline(began.Add(b.Length + blastGrace))
	for {
		elapsed := time.Since(began)
		if elapsed > b.Length {
			return r, nil
		}
		if b.Rate > 0 && float64(r.Sent+r.Failed) > elapsed.Seconds()*float64(b.Rate) {
			time.Sleep(pace) // a sender that is ahead of its rate: kernels and nodes are real, and so is time
			continue
		}
		if err := r.burst(c, packet); errors.Is(err, os.ErrDeadlineExceeded) {
			r.Stuck = time.Since(began).Seconds() - r.Seconds
			return r, nil
		}
		r.Seconds = time.Since(began).Seconds()
	}
}

// burst sends some packets and returns the last error.
func (r *Blasted) burst(c net.Conn, packet []byte) (last error) {
	for range packetBurst {
		if _, err := c.Write(packet); err != nil {
			r.Failed++
			last = err
		} else {
			r.Sent++
		}
	}
	return last
}

// Arrived is how many packets a node has received since it was last asked.
type Arrived struct{ Packets, Bytes int64 }

// datagrams counts what arrives.
type datagrams struct{ packets, bytes atomic.Int64 }

// count reads until the socket is closed.
func (d *datagrams) count(pc net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, _, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		d.packets.Add(1)
		d.bytes.Add(int64(n))
	}
}

func (a *agent) takeArrived(context.Context, Nothing) (Arrived, error) {
	return Arrived{a.arrived.packets.Swap(0), a.arrived.bytes.Swap(0)}, nil
}
