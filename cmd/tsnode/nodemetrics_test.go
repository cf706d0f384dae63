package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/proxy"
)

var updateMetrics = flag.Bool("update-metrics", false, "write the table of doc/metrics.md")

// metricsDoc is the page that lists all metrics.
const metricsDoc = "../../doc/metrics.md"

// A documented is a row of the table in doc/metrics.md.
type documented struct{ kind, labels, help, when string }

// documentedMetrics reads the table, between two marks.
func documentedMetrics(t *testing.T) (rows map[string]documented, before, after string) {
	t.Helper()
	const begin, end = "<!-- table -->\n", "<!-- end of table -->\n"
	text := readText(t, metricsDoc)
	before, rest, ok := strings.Cut(text, begin)
	table, after, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no table", metricsDoc)
	}
	rows = make(map[string]documented)
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows[strings.Trim(cells[1], "`")] = documented{cells[2], cells[3], cells[4], cells[5]}
	}
	return rows, before + begin, end + after
}

// tableOf writes the rows, those with the ecosystem's names first.
func tableOf(rows map[string]documented) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | what it is | only |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, r.kind, r.labels, r.help, r.when)
	}
	return b.String()
}

// The page of a node that does all it can is in the text format of Prometheus, and
// doc/metrics.md lists what is on it: names, types, labels and meaning (SVC-172,
// SVC-173). The socket shows the same. With -update-metrics the table is written.
func TestMetricsAreDocumented(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "other")
	socket := filepath.Join(t.TempDir(), "s")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "counts"), "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
		"--memory-limit", "64MiB", "--socket", socket, "-L", "0:other:7")...)
	base := p.find(`health and metrics on (\S+)`)
	addr := p.find(`forwarding (\S+) to other:7`)
	p.find("running as counts")
	go io.Copy(io.Discard, p.lines)
	dialEcho(t, addr).works()

	resp, err := http.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.Header.Get("Content-Type") != metricsContentType {
		t.Fatalf("%v, %q", err, resp.Header)
	}
	all, err := parseMetrics(string(page))
	if err != nil {
		t.Fatalf("%v\n%s", err, page)
	}
	var names []string
	rows, before, after := documentedMetrics(t)
	found := maps.Clone(rows)
	for _, f := range all {
		names = append(names, f.name)
		got := documented{f.kind, strings.Join(f.labels, ", "), f.help, rows[f.name].when}
		if f.labels == nil {
			got.labels = rows[f.name].labels // no series now
		}
		if found[f.name] = got; rows[f.name] != got && !*updateMetrics {
			t.Errorf("%s is %+v, documented is %+v", f.name, got, rows[f.name])
		}
	}
	if *updateMetrics {
		if err := os.WriteFile(metricsDoc, []byte(before+tableOf(found)+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for name, r := range rows {
		if r.when == "" && !slices.Contains(names, name) {
			t.Errorf("%s is documented, and not on the page", name)
		}
	}
	checkSocketMetrics(t, socket, names)
	if at := slices.IndexFunc(all, func(f *family) bool { return f.name == "tsnode_forward_bytes_total" }); at < 0 || len(all[at].series) != 2 {
		t.Errorf("no series of the forward:\n%s", page)
	}
}

// checkSocketMetrics wants the same families at the socket.
func checkSocketMetrics(t *testing.T, socket string, names []string) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs([]string{"metrics", "--socket", socket})
	root.SetOut(&out)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := parseMetrics(out.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var got []string
	for _, f := range all {
		got = append(got, f.name)
	}
	if !slices.Equal(got, names) {
		t.Errorf("the socket shows %v, the page %v", got, names)
	}
}

// Forwards have series of their own, up to a bound, and names that tell them apart.
func TestForwardMetrics(t *testing.T) {
	same := proxy.Status{Forward: "-D 1080", Open: 1, Total: 2, Failed: 3, Refused: 4, BytesIn: 5, BytesOut: 6, Dropped: 7}
	forwards := []proxy.Status{same, same}
	for i := range maxForwardSeries {
		forwards = append(forwards, proxy.Status{Forward: fmt.Sprintf("-L %d:\"web\":80", i)})
	}
	var b strings.Builder
	if err := writeMetrics(&b, forwardMetrics(forwards)); err != nil {
		t.Fatal(err)
	}
	all, err := parseMetrics(b.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	got := make(map[string]float64)
	for _, f := range all {
		if len(f.series) > 2*maxForwardSeries {
			t.Errorf("%d series of %s", len(f.series), f.name)
		}
		for labels, v := range f.series {
			got[f.name+labels] = v
		}
	}
	for series, want := range map[string]float64{
		`tsnode_forward_open{forward="-D 1080"}`: 1, `tsnode_forward_open{forward="-D 1080 #2"}`: 1,
		`tsnode_forward_connections_total{forward="-D 1080"}`: 2, `tsnode_forward_failed_total{forward="-D 1080"}`: 3,
		`tsnode_forward_refused_total{forward="-D 1080"}`: 4, `tsnode_forward_dropped_datagrams_total{forward="-D 1080"}`: 7,
		`tsnode_forward_bytes_total{forward="-D 1080",direction="from_client"}`: 5,
		`tsnode_forward_bytes_total{forward="-D 1080",direction="to_client"}`:   6,
		`tsnode_forward_open{forward="-L 0:\"web\":80"}`:                        0,
		`tsnode_forwards_without_series`:                                        2,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v, %v, want %v", series, v, ok, want)
		}
	}
}
