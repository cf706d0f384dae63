package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
)

// Bulk asks for TCP streams to or from another node; the answer is Bulked.
type Bulk struct {
	To      netip.Addr
	Streams int
	Warm    time.Duration // before anything counts
	Length  time.Duration // of what counts
	Receive bool          // the other end sends
}

// Bulked is what streams have carried.
type Bulked struct {
	Bytes  int64   // that arrived in the length asked for
	Before int64   // that arrived while it was warming up
	Mbits  float64 // a second, in the length asked for, of all streams together
}

// bulkHead is what a stream begins with.
type bulkHead struct {
	Send         bool  // the acceptor is to send
	Warm, Length int64 // nanoseconds
}

// bulkTail is what the end that receives has found when the time is over.
type bulkTail struct {
	Bytes, Before int64
	Took          int64 // nanoseconds in which Bytes arrived
}

func (a *agent) bulk(ctx context.Context, b Bulk) (Bulked, error) {
	n, err := a.first()
	if err != nil {
		return Bulked{}, err
	}
	return b.run(ctx, n)
}

func (b Bulk) run(ctx context.Context, n Node) (Bulked, error) {
	var conns []net.Conn
	for range b.Streams {
		c, err := n.Dial(ctx, "tcp", at(b.To, bulkPort))
		if err != nil {
			return Bulked{}, err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	tails := make([]bulkTail, len(conns))
	err := together(len(conns), func(i int) (err error) {
		tails[i], err = b.carry(conns[i])
		return err
	})
	return sum(tails), err
}

func sum(tails []bulkTail) (all Bulked) {
	for _, t := range tails {
		all.Bytes += t.Bytes
		all.Before += t.Before
		all.Mbits += 8e3 * float64(t.Bytes) / float64(max(1, t.Took))
	}
	return all
}

// carry has one stream do its work.
func (b Bulk) carry(c net.Conn) (t bulkTail, err error) {
	h := bulkHead{Send: b.Receive, Warm: int64(b.Warm), Length: int64(b.Length)}
	if err := binary.Write(c, binary.BigEndian, h); err != nil {
		return t, err
	}
	if b.Receive {
		return h.receive(c)
	}
	if err := h.send(c); err != nil {
		return t, err
	}
	err = binary.Read(c, binary.BigEndian, &t)
	return t, err
}

// send writes until the time is over.
func (h bulkHead) send(c net.Conn) error {
	block := make([]byte, writeSize)
	for end := time.Now().Add(time.Duration(h.Warm + h.Length)); time.Now().Before(end); {
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// receive reads until the time is over, and counts. What is under way then does
// not count: on a long path it may take seconds.
func (h bulkHead) receive(c net.Conn) (t bulkTail, err error) {
	block := make([]byte, readSize)
	began := time.Now()
	warm, end := began.Add(time.Duration(h.Warm)), began.Add(time.Duration(h.Warm+h.Length))
	c.SetReadDeadline(end)
	defer c.SetReadDeadline(time.Time{})
	for {
		n, err := c.Read(block)
		now := time.Now()
		switch {
		case !now.Before(end) || errors.Is(err, os.ErrDeadlineExceeded):
			t.Took = int64(now.Sub(warm))
			t.Bytes += int64(n)
			return t, nil
		case err != nil:
			return t, err
		case now.Before(warm):
			t.Before += int64(n)
		default:
			t.Bytes += int64(n)
		}
	}
}

// together runs f n times at once and waits.
func together(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func at(ip netip.Addr, port int) string { return net.JoinHostPort(ip.String(), strconv.Itoa(port)) }

// Close asks to close the node while it sends; the answer is Closed.
type Close struct {
	Bulk  Bulk
	After time.Duration // time to send first
	Limit time.Duration // when to give up waiting
}

// Closed is how long closing took, the limit at most.
type Closed struct{ Seconds float64 }

func (a *agent) closeUnderLoad(ctx context.Context, q Close) (Closed, error) {
	n, err := a.first()
	if err != nil {
		return Closed{}, err
	}
	sending := make(chan error, 1)
	go func() {
		_, err := q.Bulk.run(ctx, n)
		sending <- err
	}()
	select {
	case err := <-sending:
		return Closed{}, fmt.Errorf("the load ended before the node was closed: %w", err)
	case <-time.After(q.After):
	}
	began, closed := time.Now(), make(chan struct{})
	go func() {
		n.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(q.Limit):
	}
	return Closed{time.Since(began).Seconds()}, nil
}
