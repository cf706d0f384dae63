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

// TestMain is the control server or the link when the program has started
// itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == controlRole || os.Args[1] == linkRole) {
		os.Exit(command(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// smallField measures little, and never mind the noise.
func smallField(t *testing.T) *field {
	f, err := newField(settings{
		Settings: rounds.Settings{Rounds: 1, Noise: 1, Progress: io.Discard},
		length:   100 * time.Millisecond, warm: 300 * time.Millisecond, bursts: 300 * time.Millisecond, settle: time.Millisecond, idle: 10 * time.Millisecond,
		conns: 20, stall: time.Minute, rate: 1000, peers: []int{20}, nodes: []int{3},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// TestField runs the tests that share the agent, which takes seconds to build.
func TestField(t *testing.T) {
	f := smallField(t)
	f.hellos[ours] = agentProgram(ours) // as good as any
	t.Run("rows", func(t *testing.T) { testRows(t, f) })
	t.Run("canceled", func(t *testing.T) { testCanceled(t, f) })
	t.Run("loopback", func(t *testing.T) { testLoopback(t, f) })
}

// Every row measures our node; figures are not judged.
func testRows(t *testing.T, f *field) {
	for _, r := range f.rows() {
		t.Run(r.Name, func(t *testing.T) {
			v := r.Variants[0]
			r.Variants = []rounds.Variant{v}
			res, err := f.Measure(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			s := res.Samples[v.Name][0]
			for _, m := range r.Metrics {
				if _, ok := s[m.Name]; !ok {
					t.Errorf("no metric %q in %v", m.Name, s)
				}
			}
			// Further nodes may fit in what the first has; a burst may stop a stream for
			// as long as this.
			if s[r.Metrics[0].Name] <= 0 && !strings.HasPrefix(r.Name, "nodes") && r.Name != "far66-bursts" {
				t.Errorf("%s: %v", r.Metrics[0].Name, s)
			}
		})
	}
}

// Without root the same is measured on loopback, but for the rows that
// need a network without UDP.
func testLoopback(t *testing.T, f *field) {
	f.ground.close()
	f.ground = loopback()
	chosen, err := f.choose([]string{"bulk1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range chosen[0].Variants {
		if v.Name == string(tsnet) {
			continue // takes long to build
		}
		if _, err := v.Run(t.Context(), new(rounds.Round)); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	if _, err := f.choose([]string{"bulk1-relayed"}); err == nil || !strings.Contains(err.Error(), `"bulk1-relayed"`) {
		t.Errorf("relayed on loopback: error %v", err)
	}
}

// An interrupted measurement ends.
func testCanceled(t *testing.T, f *field) {
	defer func(d time.Duration) { f.length = d }(f.length)
	f.length = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := f.rows()[0].Variants[2].Run(ctx, new(rounds.Round)); err == nil {
		t.Error("measured for an hour")
	}
}

// TestParse: lists have defaults, and flags that no run can use are refused.
func TestParse(t *testing.T) {
	s, err := parse([]string{"-rows", "bulk1,trips", "-peers", "7,9"}, io.Discard)
	if err != nil || len(s.rows) != 2 || len(s.peers) != 2 || s.peers[1] != 9 || len(s.nodes) == 0 {
		t.Errorf("settings %+v, error %v", s, err)
	}
	for _, args := range [][]string{{"-rounds", "0"}, {"-peers", "7,x"}, {"-nodes", "0"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}
