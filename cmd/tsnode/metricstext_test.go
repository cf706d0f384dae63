package main

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/seed94491740/tsnode/node"
)

// A family is what a page of metrics says under one name.
type family struct {
	name, help, kind string
	labels           []string           // their names; nil before the first sample
	series           map[string]float64 // by the text of labels
}

// Names as the data model of Prometheus has them; labels in front of their values.
var (
	familyName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	labelName  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="`)
)

// parseMetrics reads the text format of Prometheus, version 0.0.4, more strictly
// than scrapers: each family has one HELP and one TYPE, in this order and before its
// samples, which stand together and have the same labels; no series comes twice;
// counters, and they alone, end with _total and are not negative.
func parseMetrics(text string) (all []*family, err error) {
	if !utf8.ValidString(text) || !strings.HasSuffix(text, "\n") {
		return nil, errors.New("no UTF-8, or the last line has no end")
	}
	var now *family
	seen := make(map[string]bool)
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		var err error
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			now, err = beginFamily(rest)
			if err == nil && seen[now.name] {
				err = errors.New("the family comes twice")
			}
			if err == nil {
				seen[now.name] = true
				all = append(all, now)
			}
		} else if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			err = now.setKind(rest)
		} else {
			err = now.sample(line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %s", i+1, err, line)
		}
	}
	return all, nil
}

func beginFamily(rest string) (*family, error) {
	name, help, _ := strings.Cut(rest, " ")
	if familyName.FindString(name) != name || name == "" || help == "" {
		return nil, errors.New("no name, or no help")
	}
	if bare := strings.NewReplacer(`\\`, "", `\n`, "").Replace(help); strings.Contains(bare, `\`) {
		return nil, errors.New("unknown escape in the help")
	}
	return &family{name: name, help: help, series: make(map[string]float64)}, nil
}

func (f *family) setKind(rest string) error {
	switch name, kind, _ := strings.Cut(rest, " "); {
	case f == nil || name != f.name:
		return errors.New("TYPE of another family than HELP")
	case f.kind != "":
		return errors.New("a second TYPE")
	case kind != "counter" && kind != "gauge":
		return errors.New("unknown type")
	case strings.HasSuffix(name, "_total") != (kind == "counter"):
		return errors.New("counters, and they alone, end with _total")
	default:
		f.kind = kind
		return nil
	}
}

func (f *family) sample(line string) error {
	if f == nil || f.kind == "" || familyName.FindString(line) != f.name {
		return errors.New("a sample outside its family")
	}
	rest := line[len(f.name):]
	labels, names := "", []string{}
	if strings.HasPrefix(rest, "{") {
		end, err := readLabels(rest, &names)
		if err != nil {
			return err
		}
		labels, rest = rest[:end], rest[end:]
	}
	value, err := strconv.ParseFloat(strings.TrimPrefix(rest, " "), 64)
	_, twice := f.series[labels]
	switch {
	case err != nil || !strings.HasPrefix(rest, " "):
		return errors.New("no value")
	case f.kind == "counter" && (value < 0 || math.IsNaN(value)):
		return errors.New("a counter below 0")
	case twice:
		return errors.New("the series comes twice")
	case f.labels != nil && !slices.Equal(f.labels, names):
		return fmt.Errorf("labels %v beside %v", names, f.labels)
	}
	f.labels, f.series[labels] = names, value
	return nil
}

// readLabels reads labels in braces, and returns where they end.
func readLabels(text string, names *[]string) (end int, err error) {
	at := 1
	for {
		m := labelName.FindStringSubmatch(text[at:])
		if m == nil || strings.HasPrefix(m[1], "__") || slices.Contains(*names, m[1]) {
			return 0, errors.New("no label, or one twice")
		}
		*names = append(*names, m[1])
		if at, err = endOfValue(text, at+len(m[0])); err != nil {
			return 0, err
		}
		switch {
		case strings.HasPrefix(text[at:], "}"):
			return at + 1, nil
		case strings.HasPrefix(text[at:], ","):
			at++
		default:
			return 0, errors.New("neither , nor } behind a label")
		}
	}
}

// endOfValue returns where a label's value ends that begins at a place.
func endOfValue(text string, at int) (int, error) {
	for at < len(text) {
		switch text[at] {
		case '"':
			return at + 1, nil
		case '\\':
			if at+1 == len(text) || !strings.ContainsRune(`\n"`, rune(text[at+1])) {
				return 0, errors.New("unknown escape in a label")
			}
			at++
		}
		at++
	}
	return 0, errors.New("a label's value has no end")
}

// What is written can be read, whatever is in labels and help, and says the same.
func TestMetricsText(t *testing.T) {
	var b strings.Builder
	err := writeMetrics(&b, []node.Metric{
		counter("a_total", "With a \\ and a\nline.", sample(1, "l", "x"), sample(1<<53, "l", "a\"b\\c\nd")),
		gauge("b", "No samples."),
		gauge("c", "Broken UTF-8.", sample(0, "l", "\xff", "m", "{},=")),
		gauge("d", "No labels.", node.Sample{Value: -1.5}),
	})
	want := "# HELP a_total With a \\\\ and a\\nline.\n# TYPE a_total counter\n" +
		"a_total{l=\"x\"} 1\na_total{l=\"a\\\"b\\\\c\\nd\"} 9007199254740992\n" +
		"# HELP b No samples.\n# TYPE b gauge\n" +
		"# HELP c Broken UTF-8.\n# TYPE c gauge\nc{l=\"\uFFFD\",m=\"{},=\"} 0\n" +
		"# HELP d No labels.\n# TYPE d gauge\nd -1.5\n"
	if err != nil || b.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, b.String(), want)
	}
	if all, err := parseMetrics(b.String()); err != nil || len(all) != 4 || all[0].series[`{l="x"}`] != 1 {
		t.Errorf("read back: %v, %d families", err, len(all))
	}
}

// The parser that the other tests trust refuses what it should.
func TestMetricsParserIsStrict(t *testing.T) {
	const head = "# HELP a_total x\n# TYPE a_total counter\n"
	for _, bad := range []string{
		"", "a 1\n", head + "a_total 1", head + "b 1\n", head + "a_total\n", head + "a_total -1\n", head + "a_total 1\na_total 2\n",
		head + "a_total{l=\"x\"} 1\na_total{l=\"x\"} 2\n", head + "a_total{l=\"x\"} 1\na_total{m=\"x\"} 2\n", head + "a_total{l=\"x} 1\n",
		head + "a_total{l=\"\\x\"} 1\n", head + "a_total{l=\"x\",l=\"y\"} 1\n", head + "a_total{} 1\n", head + "\n" + "a_total 1\n",
		head + head, "# TYPE a gauge\n# HELP a x\n", "# HELP a x\n# TYPE a counter\n", "# HELP a_total x\n# TYPE a_total gauge\n",
		"# HELP a x\n# TYPE a gauge\n# TYPE a gauge\n", "# HELP 1a x\n", "# HELP a \\x\n", "# HELP a x\n# TYPE a histogram\n", head + "a_total{l=\"\xff\"} 1\n",
	} {
		if _, err := parseMetrics(bad); err == nil {
			t.Errorf("not refused:\n%s", bad)
		}
	}
}
