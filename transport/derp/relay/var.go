package relay

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Var returns the metrics of DERP-83 in the shape of an expvar.Var, whose String
// is a JSON object. It is to be published under the name "derp".
func (s *Server) Var() fmt.Stringer { return metricsVar{s} }

type metricsVar struct{ s *Server }

// String returns the metrics as they are now.
func (v metricsVar) String() string {
	st := v.s.Stats()
	b, err := json.Marshal(st.Metrics())
	if err != nil {
		return fmt.Sprintf("{%q: %q}", "error", err) // numbers and their names always encode
	}
	return string(b)
}

// Metrics returns the metrics by the names of DERP-83: numbers, and maps of
// numbers by label or by bound for histograms, which have "sum" and "count"
// too. Those of the process are read on the way.
func (s *Stats) Metrics() map[string]any {
	m := map[string]any{
		"gauge_memstats_sys0":                 s.MemoryAtStart,
		"gauge_watchers":                      s.Watchers,
		"gauge_current_file_descriptors":      openFiles(),
		"gauge_current_connections":           s.Connections,
		"gauge_current_home_connections":      s.Homes,
		"gauge_current_notideal_connections":  s.NotIdeal,
		"gauge_clients_total":                 s.Keys + s.RemoteKeys,
		"gauge_clients_local":                 s.Keys,
		"gauge_clients_remote":                s.RemoteKeys,
		"gauge_current_dup_client_keys":       s.DuplicateKeys,
		"gauge_current_dup_client_conns":      s.DuplicateConnections,
		"counter_total_dup_client_conns":      s.TotalDuplicates,
		"accepts":                             s.Accepts,
		"bytes_received":                      s.Received.Bytes(),
		"bytes_sent":                          s.Sent.Bytes(),
		"packets_received":                    s.Received.Total(),
		"packets_sent":                        s.Sent.Total(),
		"counter_packets_received_kind":       map[string]uint64{"disco": s.Received.Disco, "other": s.Received.Other},
		"unknown_frames":                      s.UnknownFrames,
		"home_moves_in":                       s.HomeMovesIn,
		"home_moves_out":                      s.HomeMovesOut,
		"got_ping":                            s.Pings,
		"sent_pong":                           s.Pongs,
		"peer_gone_disconnected_frames":       s.GoneDisconnected,
		"peer_gone_not_here_frames":           s.GoneNotHere,
		"packets_forwarded_out":               s.ForwardedOut.Total(),
		"packets_forwarded_in":                s.ForwardedIn.Total(),
		"multiforwarder_created":              s.ForwarderJoined,
		"multiforwarder_deleted":              s.ForwarderLeft,
		"packet_forwarder_delete_other_value": s.ForwarderMismatch,
		"sclient_write_timeouts":              s.WriteTimeouts(),
		"average_queue_duration_ms":           float64(s.QueueTime) / float64(time.Millisecond),
		"counter_tcp_rtt":                     s.rttByName(),
		"counter_mesh_update_batch_size":      s.UpdateBatch.byBound(),
		"counter_mesh_update_loop_count":      s.UpdateWrites.byBound(),
		"counter_buffered_write_frames":       s.WriteFrames.byBound(),
	}
	if s.RateLimit.BytesPerSecond > 0 {
		m["rate_limit_per_client_bytes_per_second"] = s.RateLimit.BytesPerSecond
		m["rate_limit_per_client_burst_bytes"] = s.RateLimit.Burst
		m["rate_limit_per_client_waited"] = s.RateLimitWaits
	}
	return m
}

func (s *Stats) rttByName() map[string]uint64 {
	m := make(map[string]uint64)
	for i, n := range s.RTT {
		m[rttNames[i]] = n
	}
	return m
}

func (h *Histogram) byBound() map[string]uint64 {
	m := map[string]uint64{"+Inf": h.Count, "sum": h.Sum, "count": h.Count}
	for i, bound := range h.Bounds {
		m[strconv.Itoa(bound)] = h.Counts[i]
	}
	return m
}
