package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Conns asks for many short TCP connections, each for one byte there and back;
// the answer is Connected.
type Conns struct {
	To       netip.Addr
	Count    int
	Parallel int           // how many at a time
	Stall    time.Duration // a dial that has not succeeded by then counts as stalled
	Theirs   bool          // the other end closes first
}

// Connected is how it went.
type Connected struct {
	Dial    Took // from the dial to the connection
	Stalled int  // dials that never succeeded
	Failed  int  // connections that broke
}

func (a *agent) conns(ctx context.Context, q Conns) (Connected, error) {
	n, err := a.first()
	if err != nil {
		return Connected{}, err
	}
	each := make([]time.Duration, q.Count)
	var next, stalled, failed atomic.Int64
	began := time.Now()
	err = together(q.Parallel, func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= q.Count {
				return nil
			}
			var err error
			if each[i], err = q.one(ctx, n); errors.Is(err, errStalled) {
				stalled.Add(1)
			} else if err != nil {
				failed.Add(1)
			}
		}
	})
	return Connected{tookOf(each, time.Since(began)), int(stalled.Load()), int(failed.Load())}, err
}

// errStalled says that a dial did not succeed in time.
var errStalled = errors.New("dial stalled")

// one makes one connection and returns how long the dial took.
func (q Conns) one(ctx context.Context, n Node) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, q.Stall)
	defer cancel()
	port := echoPort
	if q.Theirs {
		port = leavePort
	}
	began := time.Now()
	c, err := n.Dial(ctx, "tcp", at(q.To, port))
	took := time.Since(began)
	if err != nil && ctx.Err() != nil {
		return took, errStalled
	}
	if err != nil {
		return took, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(q.Stall))
	return took, q.exchange(c)
}

// exchange sends a byte there and back, and waits for the other end to close if
// it is to be the first.
func (q Conns) exchange(c net.Conn) error {
	b := make([]byte, 1)
	if _, err := trip(c, b); err != nil || !q.Theirs {
		return err
	}
	if _, err := c.Read(b); err != io.EOF {
		return errors.New("the other end did not close")
	}
	return nil
}
