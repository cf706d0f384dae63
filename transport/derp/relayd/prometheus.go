package relayd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// labelOf are the labels of variables that are maps from label value to number
// (DERP-83, DERP-84). Maps with "sum" and "count" are histograms; others are
// groups, whose names are joined with "_".
var labelOf = map[string]string{
	"counter_packets_received_kind":   "kind",
	"counter_tcp_rtt":                 "le",
	"derp_closed_connections":         "reason",
	"counter_requests":                "disposition",
	"counter_addrfamily":              "family",
	"derper_tls_request_version":      "version",
	"gauge_derper_tls_active_version": "version",
}

// gauges are variables that go up and down without a name that says so.
var gauges = map[string]bool{
	"average_queue_duration_ms":              true,
	"rate_limit_per_client_bytes_per_second": true,
	"rate_limit_per_client_burst_bytes":      true,
}

// linkLabel is the label of variables that each mesh link has.
const linkLabel = "link"

// writePrometheus writes a JSON object of variables as Prometheus text. A name
// that begins with "gauge_" or "counter_" loses it to the metric's type; a plain
// number is a counter (DERP-83).
func writePrometheus(w io.Writer, vars []byte) error {
	d := json.NewDecoder(bytes.NewReader(vars))
	d.UseNumber() // keeps 64 bits
	var all map[string]any
	if err := d.Decode(&all); err != nil {
		return fmt.Errorf("relayd: variables: %w", err)
	}
	b := new(bytes.Buffer)
	appendGroup(b, "", all)
	_, err := w.Write(b.Bytes())
	return err
}

// appendGroup writes the variables of a group in the order of their names.
func appendGroup(b *bytes.Buffer, prefix string, group map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(group)) {
		kind, name := kindOf(key)
		name = prefix + name
		switch v := group[key].(type) {
		case json.Number:
			fmt.Fprintf(b, "# TYPE %s %s\n%s %s\n", name, kind, name, v)
		case string: // what it says is a label, as in build_info metrics
			fmt.Fprintf(b, "# TYPE %s gauge\n%s{%s=%s} 1\n", name, name, key, quoteLabel(v))
		case map[string]any:
			appendMap(b, prefix, key, v)
		}
	}
}

// appendMap writes a histogram, a metric with labels, or else a group.
func appendMap(b *bytes.Buffer, prefix, key string, values map[string]any) {
	kind, name := kindOf(key)
	name = prefix + name
	label, labelled := labelOf[key]
	switch {
	case values["sum"] != nil && values["count"] != nil:
		appendHistogram(b, name, values)
		return
	case prefix == meshGroup+"_":
		label, labelled = linkLabel, true
	case key == packetsDropped || key == bytesDropped:
		labelled = true // the keys of the map are labels already
	}
	if !labelled {
		appendGroup(b, name+"_", values)
		return
	}
	fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		labels := key
		if label != "" {
			labels = fmt.Sprintf("{%s=%s}", label, quoteLabel(key))
		}
		fmt.Fprintf(b, "%s%s %v\n", name, labels, values[key])
	}
}

// appendHistogram writes counts by upper bound, with their sum and count, as
// Prometheus wants them.
func appendHistogram(b *bytes.Buffer, name string, values map[string]any) {
	fmt.Fprintf(b, "# TYPE %s histogram\n", name)
	bounds := slices.DeleteFunc(slices.Collect(maps.Keys(values)), func(k string) bool { return k == "sum" || k == "count" })
	slices.SortFunc(bounds, func(x, y string) int { return cmp.Compare(bound(x), bound(y)) })
	for _, le := range bounds {
		fmt.Fprintf(b, "%s_bucket{le=%s} %v\n", name, quoteLabel(le), values[le])
	}
	fmt.Fprintf(b, "%s_sum %v\n%s_count %v\n", name, values["sum"], name, values["count"])
}

// bound reads a bucket's bound, +Inf included.
func bound(le string) float64 {
	f, _ := strconv.ParseFloat(le, 64)
	return f
}

// kindOf splits the type of a metric from the name of a variable.
func kindOf(key string) (kind, name string) {
	if name, ok := strings.CutPrefix(key, "gauge_"); ok || gauges[key] {
		return "gauge", name
	}
	name, _ = strings.CutPrefix(key, "counter_")
	return "counter", name
}

// labelEscapes are those of the Prometheus text format.
var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func quoteLabel(v string) string { return `"` + labelEscapes.Replace(v) + `"` }
