package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
)

// Times after which a forwarded flow of datagrams has ended if nothing goes either
// way (SVC-57).
const (
	udpIdle    = 2 * time.Minute
	udpIdleDNS = 30 * time.Second // to port 53
)

// udp carries datagrams between a peer and a host until the flow is idle.
func (g gateway) udp(ctx context.Context, in *netstack.UDPConn) {
	defer in.Close()
	from, to := addrPortOf(in.RemoteAddr()), addrPortOf(in.LocalAddr())
	host, ok := g.permits(packet.UDP, from, to)
	if !ok {
		return
	}
	out, err := g.network.Dial(ctx, "udp", host.String())
	if err != nil {
		g.log.Debug("datagrams not forwarded", "from", from, "to", to, "err", err)
		return
	}
	defer out.Close()
	defer g.behalf.note(packet.UDP, out.LocalAddr(), from)()
	idle := udpIdle
	if to.Port() == dnsPort {
		idle = udpIdleDNS
	}
	f := &datagramFlow{in: in, out: out, began: time.Now(), idle: idle}
	defer context.AfterFunc(ctx, f.close)()
	f.run()
}

// A datagramFlow is a forwarded flow of datagrams.
type datagramFlow struct {
	in, out net.Conn
	idle    time.Duration
	began   time.Time
	last    atomic.Int64 // nanoseconds from began to when something last went either way
}

// run copies datagrams both ways until the flow is idle or closed.
func (f *datagramFlow) run() {
	var wg sync.WaitGroup
	wg.Go(func() { f.carry(f.out, f.in) })
	f.carry(f.in, f.out)
	wg.Wait()
}

// Sizes of the memory for a datagram, in bytes. Few are longer than usual: the
// first such is lost, and the flow has more memory from then on.
const (
	usualDatagram   = 2048
	longestDatagram = 65535
)

// maxFailures is how many reads in a row may fail before a flow ends.
const maxFailures = 16

// carry copies datagrams one way. That a host refuses one, or cannot take it, does
// not end the flow: there may be somebody for the next.
func (f *datagramFlow) carry(to, from net.Conn) {
	defer f.close()
	buf := make([]byte, usualDatagram+1) // one more, to see that there is more
	from.SetReadDeadline(time.Now().Add(f.idle))
	for failures := 0; failures < maxFailures; {
		n, err := from.Read(buf)
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return
		case isTimeout(err):
			left := f.left()
			if left <= 0 {
				return
			}
			from.SetReadDeadline(time.Now().Add(left))
			continue
		default:
			failures++
			continue
		}
		failures = 0
		f.last.Store(int64(time.Since(f.began)))
		if n == len(buf) && n <= longestDatagram {
			buf = make([]byte, longestDatagram+1)
			continue
		}
		to.Write(buf[:n])
	}
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
