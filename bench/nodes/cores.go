package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/bench/load"
)

// coresRows are streams between nodes that may use so many processors each, as
// far as the machine has them: whether more of them help, and whether a node
// needs any particular number.
func (f *field) coresRows() (all []rounds.Row) {
	for _, streams := range []int{1, 4} {
		row := rounds.Row{Name: fmt.Sprintf("bulk%d-cores", streams), Metrics: bulkMetrics(direct, 0)}
		for i := range row.Metrics {
			row.Metrics[i].RatioMost = 0 // one processor is no reference to beat
		}
		for _, n := range coreCounts(runtime.NumCPU()) {
			w := way{path: direct.path, cores: n}
			row.Variants = append(row.Variants, rounds.Variant{Name: fmt.Sprintf("ours on %d", n), Run: func(ctx context.Context, r *rounds.Round) (rounds.Sample, error) {
				return f.withPair(ctx, ours, w, r, bulk(streams, 0))
			}})
		}
		all = append(all, row)
	}
	return append(all, compare("peers4", f.hub(4),
		rounds.Metric{Name: "send", Unit: "Mbit/s"}, rounds.Metric{Name: "receive", Unit: "Mbit/s"},
		rounds.Metric{Name: "send CPU", Unit: "s/GB", RatioMost: 0.6}, rounds.Metric{Name: "receive CPU", Unit: "s/GB", RatioMost: 0.6},
		rounds.Metric{Name: "peak RSS left", Unit: "MB", Most: 40}))
}

// coreCounts returns the powers of two up to n, and n, from the greatest to 1.
func coreCounts(n int) (counts []int) {
	for c := 1; c < n; c *= 2 {
		counts = append([]int{c}, counts...)
	}
	return append([]int{n}, counts...)
}

// hub measures the left node with so many peers, each a process with one stream:
// first they receive and then they send.
func (f *field) hub(peers int) measure {
	return func(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
		return f.withPair(ctx, k, direct, r, func(p *pair) (rounds.Sample, error) {
			if err := p.gather(ctx, k, r, peers); err != nil {
				return nil, err
			}
			return p.bulks()
		})
	}
}

// gather starts peers of the left node until there are so many, and waits until
// all have found their way to it.
func (p *pair) gather(ctx context.Context, k kind, r *rounds.Round, peers int) error {
	if err := p.left.ask("serve", load.Nothing{}, &load.Nothing{}); err != nil {
		return err
	}
	for len(p.peers()) < peers {
		a, err := p.startAgent(ctx, k, p.ground.right, p.control)
		if err != nil {
			return err
		}
		p.others = append(p.others, a)
		r.Add(a.pid())
		if err := a.up(1); err != nil {
			return err
		}
	}
	for _, a := range p.peers() {
		if err := a.ask("await", load.Await{To: p.left.ip, Path: direct.path, Limit: pathWait}, &load.Path{}); err != nil {
			return err
		}
	}
	return nil
}

// peers are all nodes that talk to the left one.
func (p *pair) peers() []*agent { return append([]*agent{p.right}, p.others...) }

// bulks has all peers receive and then send.
func (p *pair) bulks() (rounds.Sample, error) {
	s := rounds.Sample{}
	for _, d := range []struct {
		name    string
		receive bool // the peers
	}{{"send", true}, {"receive", false}} {
		before, err := p.used()
		if err != nil {
			return nil, err
		}
		mbits, bytes, err := p.all(load.Bulk{To: p.left.ip, Streams: 1, Length: p.length, Receive: d.receive})
		if err != nil {
			return nil, err
		}
		after, err := p.used()
		if err != nil {
			return nil, err
		}
		s[d.name], s[d.name+" CPU"] = mbits, (after-before)/(float64(bytes)/1e9)
	}
	var err error
	s["peak RSS left"], _, err = p.peaks()
	return s, err
}

// used returns the seconds of processor that all nodes have used.
func (p *pair) used() (total float64, err error) {
	for _, a := range append(p.peers(), p.left) {
		u, err := a.usage()
		if err != nil {
			return 0, err
		}
		total += u.CPU
	}
	return total, nil
}

// all has every peer do the same at once.
func (p *pair) all(b load.Bulk) (mbits float64, bytes int64, err error) {
	done, errs := make([]load.Bulked, len(p.peers())), make([]error, len(p.peers()))
	var wait sync.WaitGroup
	for i, a := range p.peers() {
		wait.Go(func() { errs[i] = a.ask("bulk", b, &done[i]) })
	}
	wait.Wait()
	for _, d := range done {
		mbits += d.Mbits
		bytes += d.Before + d.Bytes
	}
	return mbits, bytes, errors.Join(errs...)
}
