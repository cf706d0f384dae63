package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
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
	s := settings{Settings: rounds.Settings{Rounds: 1, Noise: 1, Progress: io.Discard}, length: 100 * time.Millisecond, warm: 50 * time.Millisecond, settle: time.Millisecond, clients: 20, burst: 10}
	f, err := newField(s)
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
			res, err := f.measure(t.Context(), r, ours)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range res.Samples[string(ours)] {
				for _, m := range r.metrics {
					if _, ok := s[m.Name]; !ok {
						t.Errorf("no metric %q in %v", m.Name, s)
					}
				}
			}
			if r.name != "idle" && res.Samples[string(ours)][0][r.metrics[0].Name] <= 0 {
				t.Errorf("%s: %v", r.metrics[0].Name, res.Samples[string(ours)])
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

// TestChooseRows: a row that does not exist is named.
func TestChooseRows(t *testing.T) {
	if _, err := chooseRows([]string{"idle", "idler"}); err == nil || !strings.Contains(err.Error(), `"idler"`) {
		t.Errorf("error %v", err)
	}
}

// TestCanceled: an interrupted measurement ends.
func TestCanceled(t *testing.T) {
	f := smallField(t)
	f.length = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := f.measure(ctx, rows[1], ours); err == nil {
		t.Error("measured for an hour")
	}
}
