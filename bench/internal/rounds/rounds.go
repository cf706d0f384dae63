// Package rounds measures rows of figures in alternating rounds: ours, the
// reference, ours, the reference. A round during which other programs used the
// machine's processors is repeated, and said so.
package rounds

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/seed94491740/tsnode/bench/internal/machine"
)

// Settings say how often to measure.
type Settings struct {
	Rounds  int     // of each row
	Noise   float64 // most of the machine's processor time that others may use
	Retries int     // of one disturbed round

	Progress io.Writer // takes a line a round
}

// AddFlags adds a flag for each setting.
func (s *Settings) AddFlags(fs *flag.FlagSet) {
	fs.IntVar(&s.Rounds, "rounds", 5, "rounds of each row; the median is shown")
	fs.Float64Var(&s.Noise, "noise", 0.05, "share of the machine's processor time that others may use during a round")
	fs.IntVar(&s.Retries, "retries", 3, "how often a disturbed round is repeated before it counts all the same")
}

// A Sample is what one round has measured, by metric.
type Sample map[string]float64

// A Metric is one number of a row.
type Metric struct {
	Name string
	Unit string

	// The bounds are what the product promises of our median: of its ratio to
	// the reference's, and by itself; 0: nothing.
	RatioMost, RatioLeast, Least, Most float64 `json:",omitempty"`

	Beside []Floor `json:",omitempty"` // what the product promises of the ratio to other variants
}

// A Floor is the least ratio of our median to that of another variant.
type Floor struct {
	Variant string
	Least   float64
}

// A Variant is whose programs are at work.
type Variant struct {
	Name       string
	RatioLeast float64 `json:",omitempty"` // promised of the first metric; 0: what that says
	Shown      bool    `json:",omitempty"` // beside the others, but not compared with them

	Run func(context.Context, *Round) (Sample, error) `json:"-"`
}

// A Row is one thing that is measured for each variant in turn. The last variant
// that is not only shown is the reference.
type Row struct {
	Name     string
	Variants []Variant
	Metrics  []Metric
}

// A Round is one measurement, and how quiet the machine was meanwhile.
type Round struct {
	pids   []int
	since  machine.Load
	others float64 // share of the machine's processor time that others used
}

// Begin notes which processes the round is about, this one besides.
func (r *Round) Begin(pids ...int) (err error) {
	r.pids = pids
	r.since, err = machine.LoadOf(pids)
	return err
}

// Add says that the round is about a process, too, that has started since Begin.
func (r *Round) Add(pid int) { r.pids = append(r.pids, pid) }

// End must be called while the processes run.
func (r *Round) End() error {
	now, err := machine.LoadOf(r.pids)
	if err == nil {
		r.others = now.Others(r.since)
	}
	return err
}

// Measure runs the rounds of a row, the variants in turn.
func (s Settings) Measure(ctx context.Context, r Row) (Result, error) {
	res := Result{Row: r.Name, Taken: s.taken(), Variants: r.Variants, Metrics: r.Metrics, Samples: make(map[string][]Sample), Others: make(map[string][]float64)}
	for i := range s.Rounds {
		for _, v := range r.Variants {
			if err := s.measure(ctx, v, &res); err != nil {
				return res, fmt.Errorf("round %d of %s: %w", i+1, v.Name, err)
			}
		}
	}
	return res, nil
}

// measure runs one round until it was quiet enough.
func (s Settings) measure(ctx context.Context, v Variant, res *Result) error {
	for try := 0; ; try++ {
		var this Round
		sample, err := v.Run(ctx, &this)
		if err != nil {
			return err
		}
		disturbed := this.others > s.Noise
		again := disturbed && try < s.Retries
		note := ""
		if again {
			note = ", to be repeated"
		}
		fmt.Fprintf(s.Progress, "%s, %s: %.4g; others used %.1f %%%s\n",
			res.Row, v.Name, sample[res.Metrics[0].Name], 100*this.others, note)
		if !again {
			res.add(v, sample, this.others, disturbed)
			return nil
		}
		res.Repeated++
	}
}
