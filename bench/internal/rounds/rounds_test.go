package rounds

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// give returns a variant that measures these values of "speed" in turn.
func give(name string, values ...float64) Variant {
	return Variant{Name: name, Run: func(_ context.Context, r *Round) (Sample, error) {
		if len(values) == 0 {
			return nil, errors.New("no more values")
		}
		s := Sample{"speed": values[0]}
		values = values[1:]
		return s, errors.Join(r.Begin(), r.End())
	}}
}

// TestMeasure: rounds alternate, and a failed one ends the row and is named.
func TestMeasure(t *testing.T) {
	var log bytes.Buffer
	s := Settings{Rounds: 3, Noise: 1, Progress: &log}
	row := Row{"cars", []Variant{give("ours", 7, 5, 6), give("reference", 2, 2)}, []Metric{{Name: "speed"}}}
	res, err := s.Measure(t.Context(), row)
	if err == nil || !strings.Contains(err.Error(), "round 3 of reference") {
		t.Errorf("error %v", err)
	}
	if got := len(res.Samples["ours"]); got != 3 {
		t.Errorf("%d samples, want 3", got)
	}
	if !strings.HasPrefix(log.String(), "cars, ours: 7;") {
		t.Errorf("progress:\n%s", &log)
	}
}

// TestDisturbed: a disturbed round is repeated, and counts in the end.
func TestDisturbed(t *testing.T) {
	var log bytes.Buffer
	s := Settings{Rounds: 1, Noise: -1, Retries: 2, Progress: &log}
	res, err := s.Measure(t.Context(), Row{"cars", []Variant{give("ours", 1, 2, 3)}, []Metric{{Name: "speed"}}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Repeated != 2 || res.Disturbed != 1 || res.Samples["ours"][0]["speed"] != 3 {
		t.Errorf("result %+v", res)
	}
}

// TestPrint: a table shows medians, ratios, and which bounds are kept.
func TestPrint(t *testing.T) {
	variants := []Variant{{Name: "ours"}, {Name: "reference"}, {Name: "kernel", Shown: true}}
	metrics := []Metric{{Name: "speed", Unit: "m/s", RatioLeast: 2, Beside: []Floor{{"kernel", 0.1}}}, {Name: "weight", RatioMost: 0.5, Most: 8}, {Name: "share", Least: 80}}
	res := Result{Row: "cars", Variants: variants, Metrics: metrics, Repeated: 1, Samples: map[string][]Sample{
		"ours":      {{"speed": 7, "weight": 9, "share": 90}, {"speed": 5, "weight": 9, "share": 90}, {"speed": 6, "weight": 9, "share": 90}},
		"reference": {{"speed": 2, "weight": 10, "share": 0}},
		"kernel":    {{"speed": 100}},
	}}
	var b bytes.Buffer
	res.Print(&b)
	for _, want := range []string{
		"6 (5..7)", "3 ok (>= 2), 0.06 of kernel MISSED (want >= 0.1)", "0.9 MISSED (want <= 0.5) MISSED (want own <= 8)", "- ok (own >= 80)", "100 (100..100)", "1 rounds repeated",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestMedian: of an even number of values, the mean of the middle two.
func TestMedian(t *testing.T) {
	if odd, even := Median([]float64{1, 2, 9}), Median([]float64{1, 2, 4, 9}); odd != 2 || even != 3 {
		t.Errorf("medians %v and %v, want 2 and 3", odd, even)
	}
}

// TestBook: a file keeps the newest result of each row, with all that printing
// needs.
func TestBook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	for i, row := range []string{"cars", "boats", "cars"} {
		b, err := OpenBook(file)
		if err != nil {
			t.Fatal(err)
		}
		res := Result{
			Row: row, Taken: Settings{}.taken(), Variants: []Variant{{Name: "ours"}}, Metrics: []Metric{{Name: "speed"}},
			Samples: map[string][]Sample{"ours": {{"speed": float64(7 + i)}}},
		}
		if err := b.Record(res); err != nil {
			t.Fatal(err)
		}
	}
	b, err := OpenBook(file)
	if err != nil || len(b.Results) != 2 {
		t.Fatalf("%d results, error %v; want those of cars and boats", len(b.Results), err)
	}
	var out strings.Builder
	b.Print(&out)
	if text := out.String(); strings.Count(text, "commit ") != 1 || !strings.Contains(text, "9 (9..9)") || strings.Contains(text, "7 (7..7)") {
		t.Errorf("printed\n%s\nwant one heading, and the newest result of cars", text)
	}
}

// TestBookOfSomethingElse: a file that holds no results is left as it is.
func TestBookOfSomethingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "letter.txt")
	if err := os.WriteFile(file, []byte("Dear reader"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v, want one that names %s", err, file)
	}
}
