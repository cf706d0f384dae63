package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain is the program itself when it has started itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-role" {
		os.Exit(command(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// smallField measures little, and never mind the noise.
func smallField(t *testing.T) *field {
	s := settings{rounds: 1, length: 100 * time.Millisecond, warm: 50 * time.Millisecond, settle: time.Millisecond, clients: 20, burst: 10, noise: 1}
	f, err := newField(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// TestRows: every row measures our programs alone; figures are not judged.
func TestRows(t *testing.T) {
	f := smallField(t)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v := r.variants[0]
			r.variants = []variant{v}
			res, err := f.measure(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range res.Samples[v.name] {
				for _, m := range r.metrics {
					if _, ok := s[m.name]; !ok {
						t.Errorf("no metric %q in %v", m.name, s)
					}
				}
			}
			if r.name != "idle" && res.Samples[v.name][0][r.metrics[0].name] <= 0 {
				t.Errorf("%s: %v", r.metrics[0].name, res.Samples[v.name])
			}
		})
	}
}

// TestTraffic: what is computed from counts.
func TestTraffic(t *testing.T) {
	one := traffic{packets: []int64{10, 0, 0, 0}}
	even := traffic{packets: []int64{10, 10, 10, 10}}
	if one.jain() != 0.25 || even.jain() != 1 || (traffic{}).jain() != 0 {
		t.Errorf("Jain's index %v and %v", one.jain(), even.jain())
	}
	if even.bits() != 40*packetSize*8 {
		t.Errorf("%v bits", even.bits())
	}
}

// TestPrint: a table shows medians, ratios, and which bounds are kept.
func TestPrint(t *testing.T) {
	m := []metric{{name: "speed", unit: "m/s", ratioLeast: 2}, {name: "weight", ratioMost: 0.5}, {name: "share", least: 80}}
	res := result{Row: "cars", row: row{"cars", pure, m, nil}, Repeated: 1, Samples: map[string][]sample{
		"ours":      {{"speed": 7, "weight": 9, "share": 90}, {"speed": 5, "weight": 9, "share": 90}, {"speed": 6, "weight": 9, "share": 90}},
		"reference": {{"speed": 2, "weight": 10, "share": 0}},
	}}
	var b bytes.Buffer
	res.print(&b)
	for _, want := range []string{
		"6 (5..7)", "3 ok (>= 2)", "0.9 MISSED (want <= 0.5)", "- ok (own >= 80)", "1 rounds repeated",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestMedian: of an even number of values, the mean of the middle two.
func TestMedian(t *testing.T) {
	if odd, even := median([]float64{1, 2, 9}), median([]float64{1, 2, 4, 9}); odd != 2 || even != 3 {
		t.Errorf("medians %v and %v, want 2 and 3", odd, even)
	}
}

// TestChooseRows: a row that does not exist is named.
func TestChooseRows(t *testing.T) {
	if _, err := chooseRows([]string{"bulk", "bulky"}); err == nil || !strings.Contains(err.Error(), `"bulky"`) {
		t.Errorf("error %v", err)
	}
}

// TestCanceled: an interrupted measurement ends.
func TestCanceled(t *testing.T) {
	f := smallField(t)
	f.length = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := f.measure(ctx, rows[1]); err == nil {
		t.Error("measured for an hour")
	}
}
