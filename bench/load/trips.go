package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	tripSize = 64  // bytes of a request and of its response
	warmups  = 100 // trips that do not count

	awaitTry   = 3 * time.Second       // for one dial while the path comes up
	awaitPause = 10 * time.Millisecond // between tries
)

// Trips asks for requests and responses on one TCP connection, one at a time;
// the answer is Took.
type Trips struct {
	To     netip.Addr
	Length time.Duration
}

// Took is how long things took.
type Took struct {
	Count    int
	P50, P99 time.Duration
	Seconds  float64 // all together
}

// tookOf sums up single durations, which it sorts.
func tookOf(each []time.Duration, all time.Duration) Took {
	if len(each) == 0 {
		return Took{}
	}
	slices.Sort(each)
	return Took{len(each), each[len(each)/2], each[len(each)*99/100], all.Seconds()}
}

func (a *agent) trips(ctx context.Context, t Trips) (Took, error) {
	n, err := a.first()
	if err != nil {
		return Took{}, err
	}
	c, err := n.Dial(ctx, "tcp", at(t.To, echoPort))
	if err != nil {
		return Took{}, err
	}
	defer c.Close()
	b := make([]byte, tripSize)
	for range warmups {
		if _, err := trip(c, b); err != nil {
			return Took{}, err
		}
	}
	var each []time.Duration
	began := time.Now()
	for time.Since(began) < t.Length {
		d, err := trip(c, b)
		if err != nil {
			return Took{}, err
		}
		each = append(each, d)
	}
	return tookOf(each, time.Since(began)), nil
}

func trip(c net.Conn, b []byte) (time.Duration, error) {
	began := time.Now()
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, b)
	return time.Since(began), err
}

// Await asks for one byte to be sent to another node and back, again and again
// until the path is as wanted; the answer is Path.
type Await struct {
	To    netip.Addr
	Path  string // its beginning; empty: any
	Limit time.Duration
}

// A Path is the one to a node.
type Path struct{ Path string }

func (a *agent) await(ctx context.Context, w Await) (p Path, err error) {
	n, err := a.first()
	if err != nil {
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, w.Limit)
	defer cancel()
	for {
		if err = reach(ctx, n, w.To); err == nil {
			if w.Path == "" {
				return p, nil
			}
			if p.Path, err = n.Path(ctx, w.To); err == nil && strings.HasPrefix(p.Path, w.Path) {
				return p, nil
			}
		}
		select {
		case <-ctx.Done():
			return p, fmt.Errorf("path to %v is %q, want %q: %w", w.To, p.Path, w.Path, err)
		case <-time.After(awaitPause):
		}
	}
}

// reach sends one byte to the other node and back.
func reach(ctx context.Context, n Node, to netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTry)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", at(to, echoPort))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(awaitTry))
	_, err = trip(c, make([]byte, 1))
	return err
}
