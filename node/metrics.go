package node

import (
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/dataplane"
)

// A Metric is something that a node counts or measures, as Prometheus has it.
// doc/metrics.md lists those of a node.
type Metric struct {
	Name    string // as tsnode_sessions
	Help    string // what it is, in a line
	Counter bool   // it only grows, until it begins at 0 again; else it is a gauge
	Samples []Sample
}

// A Sample is one value of a Metric.
type Sample struct {
	Labels []Label // the same names in all samples of a Metric; none if it has one value
	Value  float64
}

// A Label tells a Sample from others.
type Label struct{ Name, Value string }

// Metrics returns what a started node has counted, nothing before that. It reads
// what is counted anyway, and holds up no packet. What depends on the node key
// begins at 0 again when that is renewed.
func (n *Node) Metrics() []Metric {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return nil
	}
	var m metrics
	p := r.plane.Load()
	var pipeline dataplane.Stats
	if p != nil {
		pipeline = p.data.Stats()
	}
	m.shared(r, &pipeline)
	m.pipeline(&pipeline)
	m.stack(r)
	m.services(r)
	m.actors(r, p)
	m.control(r)
	if p != nil {
		m.drops(r, p, &pipeline)
		m.queues(r, p, &pipeline)
		m.underlays(p)
		m.paths(p)
		m.peers(r, p)
	}
	return m.all
}

// metrics gathers metrics.
type metrics struct{ all []Metric }

func (m *metrics) counter(name, help string, samples ...Sample) {
	m.all = append(m.all, Metric{Name: name, Help: help, Counter: true, Samples: samples})
}

func (m *metrics) gauge(name, help string, samples ...Sample) {
	m.all = append(m.all, Metric{Name: name, Help: help, Samples: samples})
}

// value is a sample without labels, or with those that pairs of a name and a value
// make.
func value[T ~int | ~int64 | ~uint64 | ~float64](v T, pairs ...string) Sample {
	s := Sample{Value: float64(v)}
	for i := 0; i+1 < len(pairs); i += 2 {
		s.Labels = append(s.Labels, Label{pairs[i], pairs[i+1]})
	}
	return s
}

// truth is 1 for true.
func truth(b bool) Sample {
	if b {
		return Sample{Value: 1}
	}
	return Sample{}
}

// compareLabels orders samples of a metric.
func compareLabels(a, b []Label) int {
	return slices.CompareFunc(a, b, func(a, b Label) int { return strings.Compare(a.Value, b.Value) })
}
