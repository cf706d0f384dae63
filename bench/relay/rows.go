package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
)

// A row is one thing that is measured for both kinds in turn.
type row struct {
	name    string
	metrics []rounds.Metric
	run     func(context.Context, *field, kind, *rounds.Round) (rounds.Sample, error)
}

var trafficMetrics = []rounds.Metric{
	{Name: "throughput", Unit: "Mbit/s"},
	{Name: "per CPU second", Unit: "Mbit", RatioLeast: 1.3},
	{Name: "CPU", Unit: "s/GB"},
	{Name: "lost", Unit: "%"},
}

var rows = []row{
	{"idle", []rounds.Metric{
		{Name: "memory of a client", Unit: "kB", RatioMost: 0.5},
		{Name: "memory before", Unit: "MB"},
		{Name: "CPU while idle", Unit: "s/h"},
	}, runIdle},
	{"throughput1", trafficMetrics, throughput(1)},
	{"throughput20", trafficMetrics, throughput(20)},
	{"fairness", []rounds.Metric{
		{Name: "Jain's index", Least: 0.9},
		{Name: "throughput", Unit: "Mbit/s"},
		{Name: "per CPU second", Unit: "Mbit"},
		{Name: "lost", Unit: "%"},
	}, runFairness},
	{"overload", []rounds.Metric{
		{Name: "goodput of peak", Unit: "%", Least: 80},
		{Name: "goodput", Unit: "Mbit/s"},
		{Name: "peak", Unit: "Mbit/s"},
		{Name: "offered", Unit: "Mbit/s"},
	}, runOverload},
}

// measure runs the rounds of a row; the last kind is the reference.
func (f *field) measure(ctx context.Context, r row, kinds ...kind) (rounds.Result, error) {
	shared := rounds.Row{Name: r.name, Metrics: r.metrics}
	for _, k := range kinds {
		run := func(ctx context.Context, this *rounds.Round) (rounds.Sample, error) { return r.run(ctx, f, k, this) }
		shared.Variants = append(shared.Variants, rounds.Variant{Name: string(k), Run: run})
	}
	return f.Measure(ctx, shared)
}

func rowNames() []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return names
}

func chooseRows(names []string) ([]row, error) {
	var chosen []row
	for _, name := range names {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("row %q is none of %s", name, strings.Join(rowNames(), ", "))
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}

// throughput measures pairs that keep a window of packets under way, which
// loses none.
func throughput(pairs int) func(context.Context, *field, kind, *rounds.Round) (rounds.Sample, error) {
	return func(ctx context.Context, f *field, k kind, r *rounds.Round) (rounds.Sample, error) {
		t, err := f.oneCrowd(ctx, k, r, pairs)
		if err != nil {
			return nil, err
		}
		return rounds.Sample{
			"throughput": t.bits() / t.seconds / 1e6, "per CPU second": t.bits() / t.cpu / 1e6,
			"CPU": t.cpu / (t.bits() / 8e9), "lost": t.lostPercent(),
		}, nil
	}
}

const busyPairs = 200 // of the row fairness

func runFairness(ctx context.Context, f *field, k kind, r *rounds.Round) (rounds.Sample, error) {
	t, err := f.oneCrowd(ctx, k, r, busyPairs)
	if err != nil {
		return nil, err
	}
	return rounds.Sample{
		"Jain's index": t.jain(), "throughput": t.bits() / t.seconds / 1e6,
		"per CPU second": t.bits() / t.cpu / 1e6, "lost": t.lostPercent(),
	}, nil
}

// oneCrowd measures pairs at a fresh relay.
func (f *field) oneCrowd(ctx context.Context, k kind, r *rounds.Round, pairs int) (t traffic, err error) {
	relay, err := f.startRelay(ctx, k)
	if err != nil {
		return t, err
	}
	defer relay.stop()
	c, err := f.gather(ctx, relay.addr, pairs)
	if err != nil {
		return t, err
	}
	defer c.disperse()
	if err := sleep(ctx, f.warm); err != nil {
		return t, err
	}
	if err := r.Begin(relay.pid()); err != nil {
		return t, err
	}
	if t, err = c.watch(ctx, relay, f.length); err != nil {
		return t, err
	}
	return t, r.End()
}

func (t traffic) lostPercent() float64 {
	return 100 * float64(t.lost) / max(1, float64(t.sent))
}

const overloadPairs = 20

// runOverload measures the peak of pairs that hold back, and then what is left
// of it when they do not.
func runOverload(ctx context.Context, f *field, k kind, r *rounds.Round) (rounds.Sample, error) {
	relay, err := f.startRelay(ctx, k)
	if err != nil {
		return nil, err
	}
	defer relay.stop()
	c, err := f.gather(ctx, relay.addr, overloadPairs)
	if err != nil {
		return nil, err
	}
	defer c.disperse()
	if err := sleep(ctx, f.warm); err != nil {
		return nil, err
	}
	if err := r.Begin(relay.pid()); err != nil {
		return nil, err
	}
	peak, err := c.watch(ctx, relay, f.length/2)
	if err != nil {
		return nil, err
	}
	c.open.Store(true)
	if err := sleep(ctx, f.warm); err != nil {
		return nil, err
	}
	over, err := c.watch(ctx, relay, f.length/2)
	if err != nil {
		return nil, err
	}
	rate := func(t traffic) float64 { return t.bits() / t.seconds / 1e6 }
	return rounds.Sample{
		"goodput of peak": 100 * rate(over) / rate(peak), "goodput": rate(over), "peak": rate(peak),
		"offered": float64(over.sent) * packetSize * 8 / over.seconds / 1e6,
	}, r.End()
}
