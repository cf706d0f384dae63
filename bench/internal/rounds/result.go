package rounds

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Result is all rounds of a row.
type Result struct {
	Row       string
	Taken     Taken
	Variants  []Variant
	Metrics   []Metric
	Samples   map[string][]Sample // by variant
	Others    map[string][]float64
	Disturbed int // rounds that count though others used the machine
	Repeated  int // rounds that do not count
}

func (res *Result) add(v Variant, s Sample, others float64, disturbed bool) {
	res.Samples[v.Name] = append(res.Samples[v.Name], s)
	res.Others[v.Name] = append(res.Others[v.Name], others)
	if disturbed {
		res.Disturbed++
	}
}

// values returns a variant's values of a metric in order of size. Not every
// variant has every metric.
func (res Result) values(v Variant, m Metric) []float64 {
	var all []float64
	for _, s := range res.Samples[v.Name] {
		if x, ok := s[m.Name]; ok {
			all = append(all, x)
		}
	}
	slices.Sort(all)
	return all
}

// Median returns the median of values in order of size, 0 of none.
func Median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Print writes a table: for each metric the median, least and most of every
// variant, and the ratio of medians to the reference.
func (res Result) Print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintf(t, "\n%s\t", res.Row)
	for _, v := range res.Variants {
		fmt.Fprintf(t, "%s\t", v.Name)
	}
	fmt.Fprintln(t, "to the reference")
	for i, m := range res.Metrics {
		fmt.Fprintf(t, "%s\t", strings.TrimSpace(m.Name+" "+m.Unit))
		for _, v := range res.Variants {
			fmt.Fprintf(t, "%s\t", spread(res.values(v, m)))
		}
		fmt.Fprintln(t, strings.Join(res.ratios(i), ", "))
	}
	if res.Repeated+res.Disturbed > 0 {
		fmt.Fprintf(t, "others used the machine: %d rounds repeated, %d counted all the same\n", res.Repeated, res.Disturbed)
	}
}

func spread(sorted []float64) string {
	if len(sorted) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.4g (%.4g..%.4g)", Median(sorted), sorted[0], sorted[len(sorted)-1])
}

// ratios returns the ratio of each variant's median to the reference's in a
// metric, and whether the bounds are kept.
func (res Result) ratios(i int) (all []string) {
	compared := slices.DeleteFunc(slices.Clone(res.Variants), func(v Variant) bool { return v.Shown })
	if len(compared) == 0 {
		return nil
	}
	last := len(compared) - 1
	base := Median(res.values(compared[last], res.Metrics[i]))
	for _, v := range compared[:last] {
		m := res.Metrics[i]
		if i == 0 {
			m.RatioLeast = max(m.RatioLeast, v.RatioLeast)
		}
		own := Median(res.values(v, m))
		text := "-"
		if base != 0 {
			text = fmt.Sprintf("%.3g", own/base)
		}
		all = append(all, text+m.verdict(own, own/base))
	}
	return append(all, res.floors(res.Metrics[i])...)
}

// floors returns the ratio of the first variant's median to those that are
// promised to be beside it, and whether they are.
func (res Result) floors(m Metric) (all []string) {
	own := Median(res.values(res.Variants[0], m))
	for _, f := range m.Beside {
		base := Median(res.values(Variant{Name: f.Variant}, m))
		if base != 0 {
			all = append(all, fmt.Sprintf("%.3g of %s%s", own/base, f.Variant, Metric{RatioLeast: f.Least}.verdict(own, own/base)))
		}
	}
	return all
}

// verdict says whether the metric's bounds are kept, if it has any.
func (m Metric) verdict(own, ratio float64) (all string) {
	say := func(ok bool, what string, bound float64) {
		if ok {
			all += fmt.Sprintf(" ok (%s %g)", what, bound)
		} else {
			all += fmt.Sprintf(" MISSED (want %s %g)", what, bound)
		}
	}
	if m.RatioLeast > 0 {
		say(ratio >= m.RatioLeast, ">=", m.RatioLeast)
	}
	if m.RatioMost > 0 {
		say(ratio <= m.RatioMost, "<=", m.RatioMost)
	}
	if m.Least > 0 {
		say(own >= m.Least, "own >=", m.Least)
	}
	if m.Most > 0 {
		say(own <= m.Most, "own <=", m.Most)
	}
	return all
}
