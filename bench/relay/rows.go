package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A sample is what one round has measured, by metric.
type sample map[string]float64

// A metric is one number of a row.
type metric struct {
	name string
	unit string

	// The bounds are what the product promises of our median: of its ratio to
	// the reference's, and by itself; 0: nothing.
	ratioMost, ratioLeast, least float64
}

// A row is one thing that is measured for each variant in turn.
type row struct {
	name     string
	variants []variant
	metrics  []metric
	run      func(context.Context, *field, variant, *round) (sample, error)
}

// A variant is whose programs are at work.
type variant struct {
	name         string
	relay, nodes kind
	ratioLeast   float64 // promised of the first metric; 0: nothing
}

// pure are the variants of rows without nodes.
var pure = []variant{{name: "ours", relay: ours}, {name: "reference", relay: reference}}

// mixed are the variants of rows with nodes.
var mixed = []variant{
	{name: "ours", relay: ours, nodes: ours, ratioLeast: 3},
	{name: "ours at reference", relay: reference, nodes: ours, ratioLeast: 1.3},
	{name: "reference", relay: reference, nodes: reference},
}

var trafficMetrics = []metric{
	{name: "throughput", unit: "Mbit/s"},
	{name: "per CPU second", unit: "Mbit", ratioLeast: 1.3},
	{name: "CPU", unit: "s/GB"},
	{name: "lost", unit: "%"},
}

var rows = []row{
	{"idle", pure, []metric{
		{name: "memory of a client", unit: "kB", ratioMost: 0.5},
		{name: "memory before", unit: "MB"},
		{name: "CPU while idle", unit: "s/h"},
	}, runIdle},
	{"throughput1", pure, trafficMetrics, throughput(1)},
	{"throughput20", pure, trafficMetrics, throughput(20)},
	{"fairness", pure, []metric{
		{name: "Jain's index", least: 0.9},
		{name: "throughput", unit: "Mbit/s"},
		{name: "per CPU second", unit: "Mbit"},
		{name: "lost", unit: "%"},
	}, runFairness},
	{"overload", pure, []metric{
		{name: "goodput of peak", unit: "%", least: 80},
		{name: "goodput", unit: "Mbit/s"},
		{name: "peak", unit: "Mbit/s"},
		{name: "offered", unit: "Mbit/s"},
	}, runOverload},
	{"bulk", mixed, []metric{
		{name: "throughput", unit: "Mbit/s"},
		{name: "CPU", unit: "s/GB"},
		{name: "CPU of the relay", unit: "s/GB"},
		{name: "CPU of the sender", unit: "s/GB"},
		{name: "CPU of the receiver", unit: "s/GB"},
	}, runBulk},
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
func throughput(pairs int) func(context.Context, *field, variant, *round) (sample, error) {
	return func(ctx context.Context, f *field, v variant, r *round) (sample, error) {
		t, err := f.oneCrowd(ctx, v, r, pairs)
		if err != nil {
			return nil, err
		}
		return sample{
			"throughput": t.bits() / t.seconds / 1e6, "per CPU second": t.bits() / t.cpu / 1e6,
			"CPU": t.cpu / (t.bits() / 8e9), "lost": t.lostPercent(),
		}, nil
	}
}

const busyPairs = 200 // of the row fairness

func runFairness(ctx context.Context, f *field, v variant, r *round) (sample, error) {
	t, err := f.oneCrowd(ctx, v, r, busyPairs)
	if err != nil {
		return nil, err
	}
	return sample{
		"Jain's index": t.jain(), "throughput": t.bits() / t.seconds / 1e6,
		"per CPU second": t.bits() / t.cpu / 1e6, "lost": t.lostPercent(),
	}, nil
}

// oneCrowd measures pairs at a fresh relay.
func (f *field) oneCrowd(ctx context.Context, v variant, r *round, pairs int) (t traffic, err error) {
	relay, err := f.startRelay(ctx, v.relay)
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
	if err := r.begin(relay.pid()); err != nil {
		return t, err
	}
	if t, err = c.watch(ctx, relay, f.length); err != nil {
		return t, err
	}
	return t, r.end()
}

func (t traffic) lostPercent() float64 {
	return 100 * float64(t.lost) / max(1, float64(t.sent))
}

const overloadPairs = 20

// runOverload measures the peak of pairs that hold back, and then what is left
// of it when they do not.
func runOverload(ctx context.Context, f *field, v variant, r *round) (sample, error) {
	relay, err := f.startRelay(ctx, v.relay)
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
	if err := r.begin(relay.pid()); err != nil {
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
	return sample{
		"goodput of peak": 100 * rate(over) / rate(peak), "goodput": rate(over), "peak": rate(peak),
		"offered": float64(over.sent) * packetSize * 8 / over.seconds / 1e6,
	}, r.end()
}
