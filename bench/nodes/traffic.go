package main

import (
	"time"

	"github.com/seed94491740/tsnode/bench/internal/machine"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/bench/load"
)

// arrivalWait is how long the last packets of a blast may take.
const arrivalWait = 300 * time.Millisecond

// bulk measures streams after a warm-up, first sent and then received by the left
// node.
func bulk(streams int, warm time.Duration) work {
	return func(p *pair) (rounds.Sample, error) {
		s := rounds.Sample{}
		for _, receive := range []bool{false, true} {
			if err := p.oneBulk(s, load.Bulk{To: p.right.ip, Streams: streams, Warm: warm, Length: p.length, Receive: receive}); err != nil {
				return nil, err
			}
		}
		var err error
		s["peak RSS left"], s["peak RSS right"], err = p.peaks()
		return s, err
	}
}

// oneBulk measures streams in one direction.
func (p *pair) oneBulk(s rounds.Sample, b load.Bulk) error {
	name := "send"
	if b.Receive {
		name = "receive"
	}
	var done load.Bulked
	relay, err := p.relayCPU()
	if err != nil {
		return err
	}
	cpu, err := p.spent(func() error { return p.left.ask("bulk", b, &done) })
	if err != nil {
		return err
	}
	after, err := p.relayCPU()
	if err != nil {
		return err
	}
	gb := float64(done.Before+done.Bytes) / 1e9
	s[name] = done.Mbits
	s[name+" CPU"] = cpu / gb
	s[name+" CPU of the relay"] = (after - relay).Seconds() / gb
	return nil
}

// relayCPU returns what the relay has used, or the control server that has it.
func (p *pair) relayCPU() (time.Duration, error) {
	switch {
	case p.derper != nil:
		return machine.CPU(p.derper.pid())
	case p.control != nil:
		return machine.CPU(p.control.pid())
	}
	return 0, nil
}

// trips measures requests and responses.
func trips(p *pair) (rounds.Sample, error) {
	var took load.Took
	cpu, err := p.spent(func() error { return p.left.ask("trips", load.Trips{To: p.right.ip, Length: p.length}, &took) })
	if err != nil {
		return nil, err
	}
	return rounds.Sample{"p50": micro(took.P50), "p99": micro(took.P99), "CPU": 1e6 * cpu / float64(took.Count)}, nil
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// conns measures short connections, so many at a time. theirs: the right node
// closes first.
func conns(parallel int, theirs bool) work {
	return func(p *pair) (rounds.Sample, error) {
		var done load.Connected
		q := load.Conns{To: p.right.ip, Count: p.conns, Parallel: parallel, Stall: p.stall, Theirs: theirs}
		cpu, err := p.spent(func() error { return p.left.ask("conns", q, &done) })
		if err != nil {
			return nil, err
		}
		n := float64(done.Dial.Count)
		return rounds.Sample{
			"rate": n / done.Dial.Seconds, "dial p50": micro(done.Dial.P50), "dial p99": micro(done.Dial.P99),
			"CPU": 1e6 * cpu / n, "stalled": float64(done.Stalled), "broken": float64(done.Failed),
		}, nil
	}
}

// packets measures UDP packets of a size, at a rate or, if that is 0, as many as
// the left node can send.
func packets(size, rate int) work {
	return func(p *pair) (rounds.Sample, error) {
		var sent load.Blasted
		var got load.Arrived
		b := load.Blast{To: p.right.ip, Size: size, Rate: rate, Length: p.length}
		cpu, err := p.spent(func() error {
			if err := p.left.ask("blast", b, &sent); err != nil {
				return err
			}
			time.Sleep(arrivalWait) // the last packets are under way in real networks
			return p.right.ask("arrived", load.Nothing{}, &got)
		})
		if err != nil {
			return nil, err
		}
		return rounds.Sample{
			"received": float64(got.Packets) / sent.Seconds, "sent": float64(sent.Sent) / sent.Seconds,
			"refused": float64(sent.Failed) / sent.Seconds, "stuck": sent.Stuck,
			"lost": 100 * (1 - float64(got.Packets)/float64(max(1, sent.Sent))),
			"CPU":  1e6 * cpu / float64(max(1, got.Packets)),
		}, nil
	}
}

// closing measures Close of a node that sends four streams.
func closing(p *pair) (rounds.Sample, error) {
	q := load.Close{
		Bulk:  load.Bulk{To: p.right.ip, Streams: 4, Length: time.Hour},
		After: closeAfter, Limit: closeLimit,
	}
	var closed load.Closed
	err := p.left.ask("close", q, &closed)
	return rounds.Sample{"close": closed.Seconds}, err
}

const (
	closeAfter = time.Second      // under load
	closeLimit = 15 * time.Second // more counts as so long
)
