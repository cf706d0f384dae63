package main

import (
	"context"
	"fmt"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
)

// rows are all that can be measured here.
func (f *field) rows() []rounds.Row {
	all := f.trafficRows(direct, "")
	if f.ground.cable != nil {
		all = append(append(all, f.trafficRows(relayed, "-relayed")...), f.relaysRow())
	}
	if f.ground.far != nil {
		all = append(all, f.farRows()...)
		all = append(all, f.holdRow())
	}
	all = append(all, f.coresRows()...)
	all = append(all, f.packetRows()...)
	all = append(all, f.connRows()...)
	all = append(all, f.lifeRows()...)
	return append(all, rounds.Row{
		Name: "cipher", Variants: []rounds.Variant{{Name: "one core", Run: cipher}},
		Metrics: []rounds.Metric{{Name: "seal", Unit: "µs"}, {Name: "open", Unit: "µs"}, {Name: "both", Unit: "s/GB"}},
	})
}

// A measure is a round of one kind.
type measure func(context.Context, kind, *rounds.Round) (rounds.Sample, error)

// compare makes a row of our node and tsnet's.
func compare(name string, run measure, metrics ...rounds.Metric) rounds.Row {
	variant := func(k kind, shown bool) rounds.Variant {
		return rounds.Variant{Name: string(k), Shown: shown, Run: func(ctx context.Context, r *rounds.Round) (rounds.Sample, error) {
			return run(ctx, k, r)
		}}
	}
	return rounds.Row{Name: name, Metrics: metrics, Variants: []rounds.Variant{variant(ours, false), variant(tsnet, false), variant(kernel, true)}}
}

// without takes the kernel out of a row.
func without(r rounds.Row) rounds.Row {
	r.Variants = r.Variants[:2]
	return r
}

// between makes a row of what two nodes do.
func (f *field) between(name string, w way, do work, metrics ...rounds.Metric) rounds.Row {
	r := compare(name, func(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
		return f.withPair(ctx, k, w, r, do)
	}, metrics...)
	if w.path == relayed.path {
		return without(r)
	}
	return r
}

// trafficRows are streams, and requests and responses.
func (f *field) trafficRows(w way, suffix string) []rounds.Row {
	return []rounds.Row{
		f.between("bulk1"+suffix, w, bulk(1, 0), bulkMetrics(w, 1.6)...),
		f.between("bulk4"+suffix, w, bulk(4, 0), bulkMetrics(w, 1.7)...),
		f.between("trips"+suffix, w, trips,
			rounds.Metric{Name: "p50", Unit: "µs", RatioMost: 0.8}, rounds.Metric{Name: "p99", Unit: "µs"},
			rounds.Metric{Name: "CPU", Unit: "µs/trip", RatioMost: 0.8}),
	}
}

// bulkMetrics are those of streams. Through a relay the same is promised as
// without.
func bulkMetrics(w way, least float64) []rounds.Metric {
	all := []rounds.Metric{
		{Name: "send", Unit: "Mbit/s", RatioLeast: least}, {Name: "receive", Unit: "Mbit/s", RatioLeast: least},
		{Name: "send CPU", Unit: "s/GB", RatioMost: 0.6}, {Name: "receive CPU", Unit: "s/GB", RatioMost: 0.6},
		{Name: "peak RSS left", Unit: "MB", Most: 40}, {Name: "peak RSS right", Unit: "MB", Most: 40},
	}
	if w == relayed {
		all = append(all, rounds.Metric{Name: "send CPU of the relay", Unit: "s/GB"}, rounds.Metric{Name: "receive CPU of the relay", Unit: "s/GB"})
	}
	return all
}

// packetRows are UDP.
func (f *field) packetRows() []rounds.Row {
	metrics := func(received float64, ofAll float64) []rounds.Metric {
		return []rounds.Metric{
			{Name: "received", Unit: "1/s", RatioLeast: received}, {Name: "sent", Unit: "1/s"}, {Name: "refused", Unit: "1/s"},
			{Name: "stuck", Unit: "s"}, {Name: "lost", Unit: "%", Most: ofAll}, {Name: "CPU", Unit: "µs/packet"},
		}
	}
	return []rounds.Row{
		f.between("packets64", direct, packets(64, 0), metrics(0, 0)...),
		f.between("packets1200", direct, packets(1200, 0), metrics(1.5, 0)...),
		f.between("packets1200-paced", direct, packets(1200, f.rate), metrics(0, 1)...),
	}
}

// connRows are short connections. Which end closes first decides where they
// linger.
func (f *field) connRows() (all []rounds.Row) {
	for _, parallel := range []int{1, 8} {
		for _, theirs := range []bool{false, true} {
			metrics := []rounds.Metric{
				{Name: "rate", Unit: "1/s"}, {Name: "dial p50", Unit: "µs"}, {Name: "dial p99", Unit: "µs"},
				{Name: "CPU", Unit: "µs/connection"}, {Name: "stalled"}, {Name: "broken"},
			}
			if parallel == 1 {
				metrics[1].RatioMost = 0.7
			} else {
				metrics[0].RatioLeast = 1.5
			}
			name := fmt.Sprintf("conns%d", parallel)
			if theirs {
				name += "-server-closes"
			}
			all = append(all, f.between(name, direct, conns(parallel, theirs), metrics...))
		}
	}
	return all
}

// manyPeers is from how many peers on their memory is promised to be far less than
// tsnet's: with fewer, what any process has outweighs it.
const manyPeers = 5000

// lifeRows are what a node costs that has nothing to do, and how it starts and
// ends.
func (f *field) lifeRows() []rounds.Row {
	all := []rounds.Row{
		without(compare("start", f.starting,
			rounds.Metric{Name: "running", Unit: "s", RatioMost: 0.4}, rounds.Metric{Name: "first byte", Unit: "s"},
			rounds.Metric{Name: "direct path", Unit: "s"})),
		without(f.between("close", direct, closing, rounds.Metric{Name: "close", Unit: "s", Most: 1})),
		without(compare("idle", f.idling,
			rounds.Metric{Name: "RSS", Unit: "MB", Most: 16}, rounds.Metric{Name: "goroutines"},
			rounds.Metric{Name: "CPU", Unit: "ms/min"})),
	}
	if f.ground.homes != nil {
		all = append(all, without(compare("start-nat", f.startingAtHome,
			rounds.Metric{Name: "running", Unit: "s"}, rounds.Metric{Name: "first byte", Unit: "s"},
			rounds.Metric{Name: "direct path", Unit: "s"}, rounds.Metric{Name: "after first byte", Unit: "s", RatioMost: 0.2})))
	}
	for _, n := range f.peers {
		most := 0.0
		if n >= manyPeers {
			most = 0.3
		}
		all = append(all, without(compare(fmt.Sprintf("peers%d", n), f.knowing(n),
			rounds.Metric{Name: "RSS", Unit: "MB", RatioMost: most}, rounds.Metric{Name: "peak RSS", Unit: "MB"},
			rounds.Metric{Name: "running", Unit: "s"}, rounds.Metric{Name: "CPU", Unit: "s"})))
	}
	for _, n := range f.nodes {
		all = append(all, without(compare(fmt.Sprintf("nodes%d", n), f.crowding(n),
			rounds.Metric{Name: "RSS of a further node", Unit: "MB", Most: 1}, rounds.Metric{Name: "goroutines of it", Most: 25},
			rounds.Metric{Name: "RSS of all", Unit: "MB"})))
	}
	return append(all, without(compare("size", f.sizing,
		rounds.Metric{Name: "size", Unit: "MB", Most: 11.5}, rounds.Metric{Name: "modules", Most: 16}, rounds.Metric{Name: "packages"})))
}
