package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Bulk asks for TCP streams to or from another node; the answer is Bulked.
type Bulk struct {
	To      netip.Addr
	Streams int
	Length  time.Duration
	Receive bool // the other end sends
}

// Bulked is what streams have carried.
type Bulked struct {
	Bytes   int64
	Seconds float64 // from the first byte until the last one has been received
}

// bulkHead is what a stream begins with.
type bulkHead struct {
	Length int64 // how long the acceptor is to send, in nanoseconds; 0: it is to receive
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
	began := time.Now()
	var total atomic.Int64
	err := together(len(conns), func(i int) error {
		got, err := b.carry(conns[i])
		total.Add(got)
		return err
	})
	return Bulked{total.Load(), time.Since(began).Seconds()}, err
}

// carry has one stream do its work and returns how many bytes have arrived.
func (b Bulk) carry(c net.Conn) (int64, error) {
	if b.Receive {
		if err := binary.Write(c, binary.BigEndian, bulkHead{int64(b.Length)}); err != nil {
			return 0, err
		}
		return io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, make([]byte, readSize))
	}
	if err := binary.Write(c, binary.BigEndian, bulkHead{}); err != nil {
		return 0, err
	}
	if err := writeFor(c, b.Length); err != nil {
		return 0, err
	}
	var got int64
	err := binary.Read(c, binary.BigEndian, &got)
	return got, err
}

// writeFor writes for a time and then closes the stream's one direction.
func writeFor(c net.Conn, length time.Duration) error {
	block := make([]byte, writeSize)
	for end := time.Now().Add(length); time.Now().Before(end); {
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T has no CloseWrite", c)
	}
	return half.CloseWrite()
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
