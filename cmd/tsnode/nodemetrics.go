package main

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"

	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// maxForwardSeries is how many forwards have series of their own.
const maxForwardSeries = 256

// answerMetrics answers a request for all that the process counts (SVC-172).
func (f *foreground) answerMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", metricsContentType)
	if err := f.writeMetrics(w); err != nil {
		f.log.Debug("metrics were not read to their end", "err", err)
	}
}

// writeMetrics writes all that the process counts.
func (f *foreground) writeMetrics(w io.Writer) error {
	all := f.node.Metrics()
	var forwards []proxy.Status
	if set := f.forwards.Load(); set != nil {
		forwards = set.List()
	}
	all = append(all, forwardMetrics(forwards)...)
	if s := f.socket.Load(); s != nil {
		st := s.Stats()
		all = append(all,
			counter("tsnode_socket_connections_total", "Connections to the local socket.", sample(st.Connections)),
			counter("tsnode_socket_requests_total", "Requests at the local socket.", sample(st.Requests)),
			counter("tsnode_socket_refused_total", "Requests at the local socket and its watchers that were refused, by reason.",
				sample(st.Denied, "reason", "denied"), sample(st.Slow, "reason", "slow")))
	}
	if f.endpointConns != nil {
		all = append(all, counter("tsnode_endpoint_refused_total", "Connections for health and metrics that were too many.", sample(f.endpointConns.Refused())))
	}
	return writeMetrics(w, append(all, processMetrics()...))
}

// forwardMetrics are the metrics of forwards and proxies.
func forwardMetrics(forwards []proxy.Status) []node.Metric {
	var open, total, failed, refused, bytes, dropped []node.Sample
	shown, seen := forwards[:min(len(forwards), maxForwardSeries)], make(map[string]int)
	for _, s := range shown {
		name := s.Forward
		if seen[s.Forward]++; seen[s.Forward] > 1 {
			name = fmt.Sprintf("%s #%d", s.Forward, seen[s.Forward])
		}
		open = append(open, sample(uint64(s.Open), "forward", name))
		total = append(total, sample(s.Total, "forward", name))
		failed = append(failed, sample(s.Failed, "forward", name))
		refused = append(refused, sample(s.Refused, "forward", name))
		bytes = append(bytes, sample(s.BytesIn, "forward", name, "direction", "from_client"), sample(s.BytesOut, "forward", name, "direction", "to_client"))
		dropped = append(dropped, sample(s.Dropped, "forward", name))
	}
	return []node.Metric{
		gauge("tsnode_forward_open", "Connections and flows of datagrams that a forward or proxy has now.", open...),
		counter("tsnode_forward_connections_total", "Connections and flows of datagrams of a forward or proxy.", total...),
		counter("tsnode_forward_failed_total", "Connections and flows that could not be forwarded.", failed...),
		counter("tsnode_forward_refused_total", "Connections and flows for which a forward or proxy had no room.", refused...),
		counter("tsnode_forward_bytes_total", "Bytes that a forward or proxy has carried, by direction.", bytes...),
		counter("tsnode_forward_dropped_datagrams_total", "Datagrams that could not be sent on.", dropped...),
		gauge("tsnode_forwards_without_series", "Forwards that are too many to have series of their own.", sample(uint64(len(forwards)-len(shown)))),
	}
}

// Memory of the process by package runtime/metrics, which does not stop the world.
const (
	memoryTotal    = "/memory/classes/total:bytes"
	memoryReleased = "/memory/classes/heap/released:bytes"
	memoryHeap     = "/memory/classes/heap/objects:bytes"
)

// processMetrics are the metrics of the process.
func processMetrics() []node.Metric {
	m := []metrics.Sample{{Name: memoryTotal}, {Name: memoryReleased}, {Name: memoryHeap}}
	metrics.Read(m)
	return []node.Metric{
		gauge("tsnode_build_info", "1, with the version.", sample(1, "version", version.String(), "go", runtime.Version())),
		gauge("tsnode_process_goroutines", "Goroutines of the process.", sample(uint64(runtime.NumGoroutine()))),
		gauge("tsnode_process_memory_bytes", "Memory that Go has from the system and has not given back.", sample(m[0].Value.Uint64()-m[1].Value.Uint64())),
		gauge("tsnode_process_heap_bytes", "Memory of objects, those that are to be collected included.", sample(m[2].Value.Uint64())),
	}
}

func counter(name, help string, samples ...node.Sample) node.Metric {
	return node.Metric{Name: name, Help: help, Counter: true, Samples: samples}
}

func gauge(name, help string, samples ...node.Sample) node.Metric {
	return node.Metric{Name: name, Help: help, Samples: samples}
}

// sample is a sample with the labels that pairs of a name and a value make.
func sample(v uint64, pairs ...string) node.Sample {
	s := node.Sample{Value: float64(v)}
	for i := 0; i+1 < len(pairs); i += 2 {
		s.Labels = append(s.Labels, node.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}
