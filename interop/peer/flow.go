package peer

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// flowSize is the size of a flow's datagrams in bytes.
const flowSize = 200

// lastWait is how long a flow waits for echoes that are still missing after its
// last datagram: a busy machine is slow.
const lastWait = 2 * time.Second

// A Flow is what became of the datagrams that a node sent to another's echo, by
// number. A time is zero if it never came.
type Flow struct {
	Number     uint64
	Sent       []time.Time
	There      []time.Time // at the echo
	Back       []time.Time // echoes at the sender
	Duplicates int         // echoes that had come before
}

// Lost returns how many datagrams never came to the echo, and how many of its
// echoes never came back.
func (f *Flow) Lost() (there, back int) {
	for i := range f.Sent {
		switch {
		case at(f.There, i).IsZero():
			there++
		case at(f.Back, i).IsZero():
			back++
		}
	}
	return there, back
}

// Resumed returns how long after a moment the first datagram sent since then
// came to the echo, and how long after it the first echo came back of those
// that the echo sent since then; negative if none did.
func (f *Flow) Resumed(since time.Time) (there, back time.Duration) {
	return resumed(f.Sent, f.There, since), resumed(f.There, f.Back, since)
}

// resumed returns the earliest arrival of what has left since a moment.
func resumed(left, came []time.Time, since time.Time) time.Duration {
	earliest := time.Duration(-1)
	for i, l := range left {
		if l.Before(since) || at(came, i).IsZero() {
			continue
		}
		if d := came[i].Sub(since); earliest < 0 || d < earliest {
			earliest = d
		}
	}
	return earliest
}

// at returns the time of a number, zero behind the last one.
func at(times []time.Time, i int) time.Time {
	if i < len(times) {
		return times[i]
	}
	return time.Time{}
}

// A flowSender is a Flow under way.
type flowSender struct {
	number uint64
	conn   net.Conn
	stop   chan struct{}
	done   sync.WaitGroup
	report Flow // of the goroutines until done

	// missing is the number of datagrams sent less that of echoes; until the
	// last one is sent, less the latter only.
	missing atomic.Int64
}

// startFlow sends one datagram each interval to a node's echo until finish.
func startFlow(ctx context.Context, m member, to netip.Addr, every time.Duration) (*flowSender, error) {
	c, err := m.Dial(ctx, "udp", net.JoinHostPort(to.String(), strconv.Itoa(echoPort)))
	if err != nil {
		return nil, err
	}
	f := &flowSender{number: rand.Uint64(), conn: c, stop: make(chan struct{})}
	f.done.Go(func() { f.send(every) })
	f.done.Go(f.receive)
	return f, nil
}

// finish ends the flow and returns what became of it.
func (f *flowSender) finish() Flow {
	close(f.stop)
	f.done.Wait()
	f.conn.Close()
	f.report.Number = f.number
	return f.report
}

func (f *flowSender) send(every time.Duration) {
	b := make([]byte, flowSize)
	binary.BigEndian.PutUint64(b, f.number)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		binary.BigEndian.PutUint64(b[8:], uint64(len(f.report.Sent)))
		f.report.Sent = append(f.report.Sent, time.Now())
		f.conn.Write(b) // an error is a loss
		select {
		case <-tick.C:
		case <-f.stop:
			f.conn.SetReadDeadline(time.Now().Add(lastWait))
			f.missing.Add(int64(len(f.report.Sent)))
			f.hurry()
			return
		}
	}
}

// hurry ends receive if nothing is missing any more. It is called after each
// change of that, by both goroutines.
func (f *flowSender) hurry() {
	if f.missing.Load() == 0 {
		f.conn.SetReadDeadline(time.Now())
	}
}

func (f *flowSender) receive() {
	var all []arrival
	came := make(map[uint64]bool)
	b := make([]byte, 2*flowSize)
	for {
		n, err := f.conn.Read(b)
		if err != nil {
			break
		}
		if n != flowSize || binary.BigEndian.Uint64(b) != f.number {
			continue
		}
		a := arrival{binary.BigEndian.Uint64(b[8:]), time.Now()}
		all = append(all, a)
		if !came[a.number] {
			came[a.number] = true
			f.missing.Add(-1)
			f.hurry()
		}
	}
	f.report.Back = first(all)
	f.report.Duplicates = len(all)
	for _, t := range f.report.Back {
		if !t.IsZero() {
			f.report.Duplicates--
		}
	}
}
