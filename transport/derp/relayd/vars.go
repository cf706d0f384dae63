package relayd

import (
	"encoding/json"
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// Groups of variables whose maps go by labels that their names do not tell.
const (
	meshGroup      = "derp_mesh"
	packetsDropped = "derp_packets_dropped"
	bytesDropped   = "derp_bytes_dropped"
)

// vars returns all that the relay counts as the JSON object that /debug/vars
// shows and the Prometheus text is made from. Names are those of DERP-83 and
// DERP-84, so that what watches a derper goes on.
func (d *Daemon) vars() ([]byte, error) {
	st := d.relay.Stats()
	server := st.Metrics()
	server["version"] = version.String()
	return json.MarshalIndent(map[string]any{
		"derp":                            server,
		packetsDropped:                    droppedVars(&st, func(t relay.Traffic) (disco, other uint64) { return t.Disco, t.Other }),
		bytesDropped:                      droppedVars(&st, func(t relay.Traffic) (disco, other uint64) { return t.DiscoBytes, t.OtherBytes }),
		"derp_websocket_accepts":          st.WebSockets,
		"derp_closed_connections":         closedVars(&st),
		"tls_listener":                    d.acceptVars(),
		"stun":                            d.stunVars(),
		meshGroup:                         d.meshVars(),
		"counter_bootstrap_dns":           d.bootstrapVars(),
		"derper_tls_request_version":      byTLSVersion(&d.tls.requests),
		"gauge_derper_tls_active_version": byTLSVersion(&d.tls.active),
		"go_sync_mutex_wait_seconds":      mutexWait(),
		"gauge_uptime_seconds":            int64(time.Since(d.started).Seconds()),
	}, "", "  ")
}

// droppedVars returns lost packets, or their bytes, by reason and kind
// (DERP-84).
func droppedVars(st *relay.Stats, kinds func(relay.Traffic) (disco, other uint64)) map[string]uint64 {
	vars := make(map[string]uint64)
	for reason, t := range st.Dropped {
		disco, other := kinds(t)
		vars[fmt.Sprintf(`{kind="disco",reason="%v"}`, relay.DropReason(reason))] = disco
		vars[fmt.Sprintf(`{kind="other",reason="%v"}`, relay.DropReason(reason))] = other
	}
	return vars
}

// closedVars returns ended connections by reason.
func closedVars(st *relay.Stats) map[string]uint64 {
	vars := make(map[string]uint64)
	for reason, n := range st.Closed {
		vars[relay.CloseReason(reason).String()] = n
	}
	return vars
}

func (d *Daemon) acceptVars() map[string]uint64 {
	return map[string]uint64{
		"counter_accepted_connections": d.accepts.accepted.Load(),
		"counter_rejected_connections": d.accepts.rejected.Load(),
	}
}

// stunVars adds up the STUN servers of both address families (NC-11).
func (d *Daemon) stunVars() map[string]map[string]uint64 {
	requests := map[string]uint64{"success": 0, "not_stun": 0, "read_error": 0, "write_error": 0}
	families := map[string]uint64{"ipv4": 0, "ipv6": 0}
	for _, s := range d.stun.Get() {
		st := s.Stats()
		requests["success"] += st.Success.Load()
		requests["not_stun"] += st.NotSTUN.Load()
		requests["read_error"] += st.ReadErrors.Load()
		requests["write_error"] += st.WriteErrors.Load()
		families["ipv4"] += st.IPv4.Load()
		families["ipv6"] += st.IPv6.Load()
	}
	return map[string]map[string]uint64{"counter_requests": requests, "counter_addrfamily": families}
}

// bootstrapVars are the counters of /bootstrap-dns (DERP-104).
func (d *Daemon) bootstrapVars() map[string]uint64 {
	st := d.bootstrap.Stats()
	return map[string]uint64{
		"requests":                   st.Requests,
		"published_hits":             st.PublishedHits,
		"published_misses":           st.PublishedMisses,
		"unpublished_hits":           st.UnpublishedHits,
		"unpublished_misses":         st.UnpublishedMisses,
		"unpublished_percent_misses": st.UnpublishedPercentMisses,
		"gauge_queried_domains":      uint64(st.QueriedDomains),
	}
}

// mutexWait returns how long goroutines have waited for locks, in seconds.
func mutexWait() float64 {
	s := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64()
}
