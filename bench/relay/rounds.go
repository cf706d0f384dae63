package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// A round is one measurement, and how quiet the machine was meanwhile.
type round struct {
	pids   []int
	since  load
	others float64 // share of the machine's processor time that others used
}

// begin notes which processes the round is about.
func (r *round) begin(pids ...int) (err error) {
	r.pids = pids
	r.since, err = loadOf(pids)
	return err
}

// end must be called while the processes run.
func (r *round) end() error {
	now, err := loadOf(r.pids)
	if err == nil {
		r.others = now.others(r.since)
	}
	return err
}

// A result is all rounds of a row.
type result struct {
	Row       string
	Samples   map[string][]sample // by variant
	Others    map[string][]float64
	Disturbed int // rounds that count though others used the machine
	Repeated  int // rounds that do not count

	row row
}

// measure runs the rounds of a row, the variants in turn.
func (f *field) measure(ctx context.Context, r row) (result, error) {
	res := result{Row: r.name, Samples: make(map[string][]sample), Others: make(map[string][]float64), row: r}
	for i := range f.rounds {
		for _, v := range r.variants {
			if err := f.measureRound(ctx, r, v, &res); err != nil {
				return res, fmt.Errorf("round %d of %s: %w", i+1, v.name, err)
			}
		}
	}
	return res, nil
}

// measureRound runs one round until it was quiet enough.
func (f *field) measureRound(ctx context.Context, r row, v variant, res *result) error {
	for try := 0; ; try++ {
		var this round
		s, err := r.run(ctx, f, v, &this)
		if err != nil {
			return err
		}
		disturbed := this.others > f.noise
		note := ""
		if disturbed && try < f.retries {
			res.Repeated++
			note = ", to be repeated"
		}
		fmt.Fprintf(os.Stderr, "%s, %s: %.4g; others used %.1f %%%s\n", r.name, v.name, s[r.metrics[0].name], 100*this.others, note)
		if note != "" {
			continue
		}
		if disturbed {
			res.Disturbed++
		}
		res.Samples[v.name] = append(res.Samples[v.name], s)
		res.Others[v.name] = append(res.Others[v.name], this.others)
		return nil
	}
}

// values returns a variant's values of a metric in order of size.
func (res result) values(v variant, m metric) []float64 {
	var all []float64
	for _, s := range res.Samples[v.name] {
		all = append(all, s[m.name])
	}
	slices.Sort(all)
	return all
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// print writes a table: for each metric the median, least and most of every
// variant, and the ratio of medians to the reference, which is the last one.
func (res result) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintf(t, "\n%s\t", res.Row)
	for _, v := range res.row.variants {
		fmt.Fprintf(t, "%s\t", v.name)
	}
	fmt.Fprintln(t, "to the reference")
	for i, m := range res.row.metrics {
		fmt.Fprintf(t, "%s\t", strings.TrimSpace(m.name+" "+m.unit))
		for _, v := range res.row.variants {
			all := res.values(v, m)
			fmt.Fprintf(t, "%.4g (%.4g..%.4g)\t", median(all), all[0], all[len(all)-1])
		}
		fmt.Fprintln(t, strings.Join(res.ratios(i), ", "))
	}
	if res.Repeated+res.Disturbed > 0 {
		fmt.Fprintf(t, "others used the machine: %d rounds repeated, %d counted all the same\n", res.Repeated, res.Disturbed)
	}
}

// ratios returns the ratio of each variant's median to the reference's in a
// metric, and whether the bounds are kept.
func (res result) ratios(i int) (all []string) {
	m, last := res.row.metrics[i], len(res.row.variants)-1
	base := median(res.values(res.row.variants[last], m))
	for _, v := range res.row.variants[:last] {
		own := median(res.values(v, m))
		if i == 0 {
			m.ratioLeast = max(m.ratioLeast, v.ratioLeast)
		}
		text := "-"
		if base != 0 {
			text = fmt.Sprintf("%.3g", own/base)
		}
		all = append(all, text+m.verdict(own, own/base))
		m.ratioLeast = res.row.metrics[i].ratioLeast
	}
	return all
}

// verdict says whether the metric's bound is kept, if it has one.
func (m metric) verdict(own, ratio float64) string {
	said := func(ok bool, sign string, bound float64) string {
		if ok {
			return fmt.Sprintf(" ok (%s %g)", sign, bound)
		}
		return fmt.Sprintf(" MISSED (want %s %g)", sign, bound)
	}
	switch {
	case m.ratioLeast > 0:
		return said(ratio >= m.ratioLeast, ">=", m.ratioLeast)
	case m.ratioMost > 0:
		return said(ratio <= m.ratioMost, "<=", m.ratioMost)
	case m.least > 0:
		return said(own >= m.least, "own >=", m.least)
	}
	return ""
}

// writeJSON writes all samples to a file.
func writeJSON(file string, results []result) error {
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
