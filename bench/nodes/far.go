package main

import (
	"context"
	"os"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/link"
	"github.com/seed94491740/tsnode/bench/internal/machine"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/bench/load"
)

// linkRole is what this program is called to be the link of a distance, whose
// ends it inherits.
const linkRole = "link"

// A distance is two sites of a ground far from each other.
type distance struct {
	left, right site
	lay         func() ([]*os.File, error) // makes the ends of the link
}

// A linkReport is what a link has done, from left to right and back.
type linkReport struct {
	Counts [2]link.Counts
	Lag    link.Lag
}

// A linkProcess is the link of a distance in a process of its own.
type linkProcess struct {
	*process
	conditions link.Conditions
}

// startLink joins the two sites of the distance. At first there is nothing but
// the delay, until reset.
func (f *field) startLink(ctx context.Context, c link.Conditions) (*linkProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ends, err := f.ground.far.lay()
	if err != nil {
		return nil, err
	}
	p, err := f.start(ctx, f.ground.core, ends, self, linkRole)
	for _, end := range ends {
		end.Close()
	}
	if err != nil {
		return nil, err
	}
	l := &linkProcess{p, c}
	if err := l.set(link.Conditions{Delay: c.Delay}); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// reset has the conditions begin anew.
func (l *linkProcess) reset() error { return l.set(l.conditions) }

func (l *linkProcess) set(c link.Conditions) error { return l.ask("set", c, &load.Nothing{}) }

// farRows are single streams over a link.
func (f *field) farRows() (all []rounds.Row) {
	const near, far = 5 * time.Millisecond, 33 * time.Millisecond // one way
	for _, r := range []struct {
		name string
		c    link.Conditions
	}{
		{"far66", link.Conditions{Delay: far}},
		{"far66-reordered", link.Conditions{Delay: far, Late: 0.001, LateBy: 5 * time.Millisecond}},
		{"far66-loss", link.Conditions{Delay: far, Loss: 0.001}},
		{"far66-bursts", link.Conditions{Delay: far, Burst: 20, BurstFirst: f.warm + f.bursts/10, BurstEvery: f.bursts}},
		{"far10-reordered", link.Conditions{Delay: near, Late: 0.001, LateBy: 5 * time.Millisecond}},
		{"far10-loss", link.Conditions{Delay: near, Loss: 0.005}},
	} {
		row := f.farRow(r.name, r.c)
		for i := range row.Metrics[:2] { // both directions
			row.Metrics[i].RatioLeast = 1
			row.Metrics[i].Beside = []rounds.Floor{{Variant: string(cubic), Least: 0.8}}
		}
		all = append(all, row)
	}
	return append(all, f.repairRows()...)
}

// repairRows are the lossy links as a tunnel would show them to TCP that had what
// was lost sent again: a round trip later, in order or not. No promise is made of them.
func (f *field) repairRows() (all []rounds.Row) {
	const near, far, notice = 5 * time.Millisecond, 33 * time.Millisecond, time.Millisecond
	for _, r := range []struct {
		name  string
		delay time.Duration
		loss  float64
	}{
		{"far66-repaired", far, 0.001},
		{"far10-repaired", near, 0.005},
	} {
		c := link.Conditions{Delay: r.delay, Late: r.loss, LateBy: 2*r.delay + notice, Loss: r.loss * r.loss}
		all = append(all, f.farRow(r.name, c))
		c.InOrder = true
		all = append(all, f.farRow(r.name+"-in-order", c))
	}
	return all
}

// farRow compares our node with tsnet's and with the kernel.
func (f *field) farRow(name string, c link.Conditions) rounds.Row {
	metrics := []rounds.Metric{
		{Name: "send", Unit: "Mbit/s"}, {Name: "receive", Unit: "Mbit/s"},
		{Name: "send CPU", Unit: "s/GB"}, {Name: "receive CPU", Unit: "s/GB"},
		{Name: "lost by the link", Unit: "%"}, {Name: "held back", Unit: "%"}, {Name: "overflow", Unit: "packets"},
		{Name: "lag of the link", Unit: "µs"}, {Name: "CPU of the link", Unit: "s"},
	}
	row := rounds.Row{Name: name, Metrics: metrics}
	for _, k := range []kind{ours, tsnet, cubic, reno, bbr} {
		row.Variants = append(row.Variants, rounds.Variant{Name: string(k), Shown: k.isKernel(), Run: func(ctx context.Context, r *rounds.Round) (rounds.Sample, error) {
			return f.withPair(ctx, k, way{path: direct.path, link: &c}, r, haul)
		}})
	}
	return row
}

// holdRow is a stream through a relay that stands still now and then.
func (f *field) holdRow() rounds.Row {
	return f.between("relay-holds", way{path: relayed.path, hold: true}, bulk(1, f.warm), bulkMetrics(relayed, 2)...)
}

// haul measures one stream over a link, first sent and then received by the left
// node. Where there are bursts, each transfer has one at least.
func haul(p *pair) (rounds.Sample, error) {
	s := rounds.Sample{}
	length := p.length
	if p.link.conditions.Burst > 0 {
		length = max(length, p.bursts)
	}
	var reports []linkReport
	cpu, err := machine.CPU(p.link.pid())
	if err != nil {
		return nil, err
	}
	for _, receive := range []bool{false, true} {
		if err := p.link.reset(); err != nil {
			return nil, err
		}
		b := load.Bulk{To: p.right.ip, Streams: 1, Warm: p.warm, Length: length, Receive: receive}
		if err := p.oneBulk(s, b); err != nil {
			return nil, err
		}
		var r linkReport
		if err := p.link.ask("report", load.Nothing{}, &r); err != nil {
			return nil, err
		}
		reports = append(reports, r)
	}
	after, err := machine.CPU(p.link.pid())
	s["CPU of the link"] = (after - cpu).Seconds()
	addReports(s, reports)
	return s, err
}

// addReports sums up what a link has done.
func addReports(s rounds.Sample, reports []linkReport) {
	var all link.Counts
	for _, r := range reports {
		for _, c := range r.Counts {
			all.Packets += c.Packets
			all.Lost += c.Lost + c.Burst
			all.Late += c.Late
			all.Overflow += c.Overflow
		}
		s["lag of the link"] = max(s["lag of the link"], micro(r.Lag.Mean))
	}
	s["lost by the link"] = 100 * float64(all.Lost) / float64(max(1, all.Packets))
	s["held back"] = 100 * float64(all.Late) / float64(max(1, all.Packets))
	s["overflow"] = float64(all.Overflow)
}
