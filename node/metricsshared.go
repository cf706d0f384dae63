package node

import (
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packetfilter"
)

// shared are the metrics that have the ecosystem's names, for they mean the same
// (SVC-172).
func (m *metrics) shared(r *runtime, s *dataplane.Stats) {
	m.traffic("tailscaled_inbound", "received from other nodes", s.Received)
	m.traffic("tailscaled_outbound", "sent to other nodes", s.Sent)
	m.counter("tailscaled_inbound_dropped_packets_total", "Packets from other nodes that were dropped, by reason.",
		verdicts(s.Filter.In, refused(r))...)
	m.counter("tailscaled_outbound_dropped_packets_total", "Packets to other nodes that were dropped, by reason.",
		verdicts(s.Filter.Out, s.Dropped[dataplane.NoTunnel]+s.Dropped[dataplane.NoPath]+s.Dropped[dataplane.NotSealed]+s.Dropped[dataplane.SendFailed])...)

	nm, prefs, warnings := r.netmap(), r.prefs.Get(), 0
	var approved []netip.Prefix
	if nm != nil {
		warnings, approved = len(health(nm, r)), approvedRoutes(nm)
	}
	if r.lifeState.Get().problem != nil {
		warnings++
	}
	m.gauge("tailscaled_advertised_routes", "Networks that the node offers to route to, those of an exit node left out.",
		value(len(withoutExit(prefs.advertised()))))
	m.gauge("tailscaled_approved_routes", "Networks that the tailnet has the node route to, those of an exit node left out.",
		value(len(withoutExit(approved))))
	m.gauge("tailscaled_health_messages", "Problems that an operator should act on.", value(warnings, "type", "warning"))
	m.gauge("tailscaled_home_derp_region_id", "Number of the home region among the relays; 0 for none.", value(r.home.Get()))
}

// traffic are datagrams of the tunnel and their bytes, by the way they took.
func (m *metrics) traffic(prefix, verb string, by [dataplane.PathKinds]dataplane.Traffic) {
	var packets, bytes []Sample
	for kind, t := range by {
		path := dataplane.PathKind(kind).String()
		packets = append(packets, value(t.Datagrams, "path", path))
		bytes = append(bytes, value(t.Bytes, "path", path))
	}
	m.counter(prefix+"_packets_total", "Datagrams of the tunnel "+verb+", by path.", packets...)
	m.counter(prefix+"_bytes_total", "Bytes of the tunnel's datagrams "+verb+", by path.", bytes...)
}

// verdicts are the packet filter's drops by the labels of the ecosystem, and what
// else was lost.
func verdicts(by [packetfilter.Reasons]uint64, failed uint64) (samples []Sample) {
	sums := map[string]uint64{"error": failed}
	for reason, n := range by {
		if r := packetfilter.Reason(reason); r != packetfilter.Accepted {
			sums[r.String()] += n
		}
	}
	for reason, n := range sums {
		samples = append(samples, value(n, "reason", reason))
	}
	slices.SortFunc(samples, func(a, b Sample) int { return compareLabels(a.Labels, b.Labels) })
	return samples
}

// refused is what the end of the overlay did not take.
func refused(r *runtime) uint64 {
	if r.device == nil {
		return 0 // netstack counts for each socket
	}
	return r.device.Stats().Refused
}

// approvedRoutes are the networks that the tailnet has this node route to.
func approvedRoutes(nm *netmap.Netmap) (routes []netip.Prefix) {
	for _, p := range nm.Self.AllowedIPs {
		if !slices.Contains(nm.Self.Addresses, p) {
			routes = append(routes, p)
		}
	}
	return routes
}

// withoutExit leaves out the routes of an exit node.
func withoutExit(routes []netip.Prefix) (rest []netip.Prefix) {
	for _, p := range routes {
		if p.Bits() > 0 {
			rest = append(rest, p)
		}
	}
	return rest
}
