package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
)

// Times after which a forwarded flow of datagrams has ended if nothing goes either
// way (SVC-57).
const (
	udpIdle    = 2 * time.Minute
	udpIdleDNS = 30 * time.Second // to port 53
)

// idleFor returns how long a flow to a port may be idle.
func idleFor(port uint16) time.Duration {
	if port == dnsPort {
		return udpIdleDNS
	}
	return udpIdle
}

// udp carries datagrams between a peer and a host until the flow is idle.
func (g gateway) udp(ctx context.Context, in *netstack.UDPConn) {
	defer in.Close()
	from, to := addrPortOf(in.RemoteAddr()), addrPortOf(in.LocalAddr())
	dst, ok := g.permits(packet.UDP, from, to)
	if !ok {
		return
	}
	out, err := g.network.Dial(ctx, "udp", dst.String())
	if err != nil {
		g.log.Debug("datagrams not forwarded", "from", from, "to", to, "err", err)
		return
	}
	defer out.Close()
	defer g.behalf.note(packet.UDP, out.LocalAddr(), from)()
	f := &datagramFlow{
		in: source{in, in.WaitRead}, out: source{out, host.Awaiter(out)},
		began: time.Now(), idle: idleFor(to.Port()),
	}
	defer context.AfterFunc(ctx, f.close)()
	f.run()
}

// A datagramFlow is a forwarded flow of datagrams.
type datagramFlow struct {
	in, out source
	idle    time.Duration
	began   time.Time
	last    atomic.Int64 // nanoseconds from began to when something last went either way
}

// A source is a socket that datagrams come from, and how to wait for one.
type source struct {
	net.Conn
	wait func() error
}

// run copies datagrams both ways until the flow is idle or closed.
func (f *datagramFlow) run() {
	var wg sync.WaitGroup
	wg.Go(func() { f.carry(f.out, f.in) })
	f.carry(f.in, f.out)
	wg.Wait()
}

// longestDatagram is how many bytes a datagram has at most: its length is a number
// of 16 bits (RFC 768).
const longestDatagram = 65535

// datagramMemory has room for one datagram each. A flow takes it when there is one
// to carry, and has none while it waits.
var datagramMemory = sync.Pool{New: func() any { return new([longestDatagram]byte) }}

// maxFailures is how many reads in a row may fail before a flow ends.
const maxFailures = 16

// carry copies datagrams one way. That a host refuses one, or cannot take it, does
// not end the flow: there may be somebody for the next.
func (f *datagramFlow) carry(to, from source) {
	defer f.close()
	from.SetReadDeadline(time.Now().Add(f.idle))
	for failures := 0; failures < maxFailures; {
		switch err := f.carryOne(to, from); {
		case err == nil:
			failures = 0
		case errors.Is(err, net.ErrClosed):
			return
		case isTimeout(err):
			left := f.left()
			if left <= 0 {
				return
			}
			from.SetReadDeadline(time.Now().Add(left))
		default:
			failures++
		}
	}
}

// carryOne waits for a datagram and copies it. The error is one of reading.
func (f *datagramFlow) carryOne(to, from source) error {
	if err := from.wait(); err != nil {
		return err
	}
	buf := datagramMemory.Get().(*[longestDatagram]byte)
	defer datagramMemory.Put(buf)
	n, err := from.Read(buf[:])
	if err != nil {
		return err
	}
	f.last.Store(int64(time.Since(f.began)))
	to.Write(buf[:n])
	return nil
}

// left is how long the flow may still be idle.
func (f *datagramFlow) left() time.Duration {
	return f.idle - (time.Since(f.began) - time.Duration(f.last.Load()))
}

// close ends both directions.
func (f *datagramFlow) close() {
	f.in.Close()
	f.out.Close()
}
