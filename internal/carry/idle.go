package carry

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// Times after which a flow of datagrams has ended if nothing goes either way
// (SVC-57).
const (
	idleAfter    = 2 * time.Minute
	idleAfterDNS = 30 * time.Second
	dnsPort      = 53
)

// IdleAfter returns how long a flow of datagrams to a port may be idle (SVC-57).
func IdleAfter(port uint16) time.Duration {
	if port == dnsPort {
		return idleAfterDNS
	}
	return idleAfter
}

// LongestDatagram is how many bytes a datagram has at most: its length is a number
// of 16 bits (RFC 768).
const LongestDatagram = 65535

// datagramMemory has room for one datagram each. A flow takes it when there is one
// to carry, and has none while it waits.
var datagramMemory = sync.Pool{New: func() any { return new([LongestDatagram]byte) }}

// ErrorPause is how long the reader of a socket of many flows waits after an error:
// that a host refuses a reply is told of there on some systems.
const ErrorPause = time.Millisecond

// maxFailures is how many reads in a row may fail before a flow ends.
const maxFailures = 16

// An idleness tells how long nothing has gone either way of a flow.
type idleness struct {
	after time.Duration
	began time.Time
	last  atomic.Int64 // nanoseconds from began to when something went last
}

func (i *idleness) touch() { i.last.Store(int64(time.Since(i.began))) }

// left is how long the flow may still be idle.
func (i *idleness) left() time.Duration {
	return i.after - (time.Since(i.began) - time.Duration(i.last.Load()))
}

// receive calls got with each datagram that from receives, until the flow is idle
// or from is closed. That a host refuses one, or cannot take it, does not end the
// flow: there may be somebody for the next.
func (i *idleness) receive(from net.Conn, got func([]byte)) {
	wait := awaiter(from)
	from.SetReadDeadline(time.Now().Add(i.after))
	for failures := 0; failures < maxFailures; {
		switch err := i.receiveOne(from, wait, got); {
		case err == nil:
			failures = 0
		case errors.Is(err, net.ErrClosed):
			return
		case isTimeout(err):
			left := i.left()
			if left <= 0 {
				return
			}
			from.SetReadDeadline(time.Now().Add(left))
		default:
			failures++
		}
	}
}

// receiveOne waits for a datagram and hands it to got. The error is one of reading.
func (i *idleness) receiveOne(from net.Conn, wait func() error, got func([]byte)) error {
	if err := wait(); err != nil {
		return err
	}
	buf := datagramMemory.Get().(*[LongestDatagram]byte)
	defer datagramMemory.Put(buf)
	n, err := from.Read(buf[:])
	if err != nil {
		return err
	}
	i.touch()
	got(buf[:n])
	return nil
}

// awaiter returns how to wait for a datagram without memory for it.
func awaiter(c net.Conn) func() error {
	c = Unwrap(c)
	if w, ok := c.(interface{ WaitRead() error }); ok {
		return w.WaitRead
	}
	return host.Awaiter(c)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
