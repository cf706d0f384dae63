package main

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/node"
)

// metricsContentType is that of what writeMetrics writes.
const metricsContentType = "text/plain; version=0.0.4; charset=utf-8"

// What the text format of Prometheus has to be escaped (its documentation,
// "Exposition formats", version 0.0.4).
var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// writeMetrics writes metrics in the text format of Prometheus.
func writeMetrics(w io.Writer, all []node.Metric) error {
	b := bufio.NewWriter(w)
	for i := range all {
		m := &all[i]
		kind := "gauge"
		if m.Counter {
			kind = "counter"
		}
		b.WriteString("# HELP " + m.Name + " " + helpEscapes.Replace(m.Help) + "\n# TYPE " + m.Name + " " + kind + "\n")
		for _, s := range m.Samples {
			b.WriteString(m.Name)
			writeLabels(b, s.Labels)
			b.WriteString(" " + strconv.FormatFloat(s.Value, 'f', -1, 64) + "\n")
		}
	}
	return b.Flush()
}

func writeLabels(b *bufio.Writer, labels []node.Label) {
	for i, l := range labels {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(l.Name + `="` + labelEscapes.Replace(strings.ToValidUTF8(l.Value, "\uFFFD")) + `"`)
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
}
