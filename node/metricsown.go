package node

import (
	"maps"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/disco"
)

// pipeline are the metrics of tunnel and packet filter.
func (m *metrics) pipeline(s *dataplane.Stats) {
	t := &s.Tunnel
	m.gauge("tsnode_peers", "Nodes that may have a tunnel with this one.", value(s.Peers))
	m.gauge("tsnode_sessions", "Peers with which there is a tunnel now.", value(t.Sessions))
	m.gauge("tsnode_routes", "Networks and addresses that packets are routed to peers for.", value(s.Routes))
	m.counter("tsnode_handshakes_total", "Handshakes of the tunnel that were completed.", value(t.Handshakes))
	m.counter("tsnode_handshake_messages_total", "Messages of the tunnel besides data that were sent, by kind.",
		value(t.Initiations, "kind", "initiation"), value(t.Responses, "kind", "response"),
		value(t.CookieReplies, "kind", "cookie"), value(t.Keepalives, "kind", "keepalive"))
	m.counter("tsnode_overtaken_packets_total", "Packets that came after later ones of the same tunnel.", value(t.Late))
	m.counter("tsnode_held_packets_total", "Packets that waited for those which they had overtaken.", value(t.Held))
	m.gauge("tsnode_flows", "Flows that the packet filter knows.", value(s.Filter.Flows))
	m.counter("tsnode_flows_evicted_total", "Flows that the packet filter has forgotten for newer ones.", value(s.Filter.Evicted))
}

// stack are the metrics of the ends of connections, which a node with a device has
// none of.
func (m *metrics) stack(r *runtime) {
	if r.device != nil {
		d := r.device.Stats()
		m.counter("tsnode_device_packets_total", "Packets of the TUN device, super-packets counted as one, by direction.",
			value(d.Written, "direction", "inbound"), value(d.Read, "direction", "outbound"))
	}
	if r.stack == nil {
		return
	}
	s := r.stack.Stats()
	m.counter("tsnode_tcp_retransmits_total", "Segments of TCP that were sent again.", value(s.TCPRetransmits))
	m.counter("tsnode_tcp_timeouts_total", "Times that TCP has waited for an acknowledgement in vain.", value(s.TCPTimeouts))
	m.counter("tsnode_tcp_refused_total", "Connections for which there was no memory.", value(s.TCPRefused))
	f := r.forwarder.Stats()
	m.counter("tsnode_routed_flows_total", "Flows with networks behind the node, by protocol.",
		value(f.TCP, "protocol", "tcp"), value(f.UDP, "protocol", "udp"), value(f.Echo, "protocol", "icmp"))
	m.counter("tsnode_routed_refused_total", "Flows with networks behind the node that were refused, by reason.",
		value(f.Busy, "reason", "busy"), value(f.Failed, "reason", "no_answer"))
	m.counter("tsnode_routed_bytes_total", "Bytes that peers and networks behind the node have exchanged, by direction.",
		value(r.carried.In.Load(), "direction", "to_network"), value(r.carried.Out.Load(), "direction", "to_peer"))
	m.gauge("tsnode_routed_open", "Flows with networks behind the node that are under way.", value(f.Open))
	if memory := r.memory(); memory.Limit > 0 {
		m.gauge("tsnode_memory_limit_bytes", "Memory that packets and connections may take.", value(memory.Limit))
		m.gauge("tsnode_memory_used_bytes", "Memory that packets and connections may fill now.", value(memory.Used))
	}
}

// services are the metrics of what the node does for others.
func (m *metrics) services(r *runtime) {
	d, p := r.names.Stats(), r.peerAPI.Stats()
	m.counter("tsnode_dns_questions_total", "Questions about names.", value(d.Queries))
	m.counter("tsnode_dns_answers_total", "Questions about names, by what became of them.",
		value(d.Local, "result", "local"), value(d.Forwarded, "result", "forwarded"))
	m.counter("tsnode_dns_failures_total", "Questions about names that were not answered, by reason.",
		value(d.Failed, "reason", "upstream"), value(d.Busy, "reason", "busy"), value(d.Malformed, "reason", "malformed"),
		value(d.Foreign, "reason", "foreign"))
	m.counter("tsnode_peerapi_connections_total", "Connections of peers to the node's service for them.", value(p.Connections))
	m.counter("tsnode_peerapi_requests_total", "Requests of peers.", value(p.Requests))
	m.counter("tsnode_peerapi_refused_total", "Requests and connections of peers that were refused, by reason.",
		value(p.Strangers, "reason", "stranger"), value(p.Crowded, "reason", "crowded"),
		value(p.Forbidden, "reason", "forbidden"), value(p.Busy, "reason", "busy"))
}

// actors are the restarts of actors.
func (m *metrics) actors(r *runtime, p *plane) {
	restarts := r.tree.Restarts()
	if p != nil {
		maps.Copy(restarts, p.tree.Restarts())
	}
	var samples []Sample
	for _, name := range slices.Sorted(maps.Keys(restarts)) {
		samples = append(samples, value(restarts[name], "actor", name))
	}
	m.counter("tsnode_actor_restarts_total", "Times that a part of the node has failed and was started again.", samples...)
}

// control are the metrics of the node's relation to its tailnet.
func (m *metrics) control(r *runtime) {
	m.gauge("tsnode_running", "Whether the node is on its tailnet.", truth(r.lifeState.Get().state == StateRunning))
	m.gauge("tsnode_control_connected", "Whether the node is connected to the control server.", truth(r.control.Status.Get().Connected))
	m.counter("tsnode_control_problems_total", "Problems with the control server, each kind once until it is over.", value(r.troubles.Load()))
	var expiry []Sample
	if nm := r.netmap(); nm != nil && !nm.Self.KeyExpiry.Time().IsZero() {
		expiry = append(expiry, value(nm.Self.KeyExpiry.Time().Unix()))
	}
	m.gauge("tsnode_key_expiry_timestamp_seconds", "When the node key expires; missing if it does not.", expiry...)
}

// drops are all packets and messages that went no further, by who has dropped them
// and why.
func (m *metrics) drops(r *runtime, p *plane, s *dataplane.Stats) {
	var samples []Sample
	add := func(part, reason string, n uint64) {
		samples = append(samples, value(n, "part", part, "reason", reason))
	}
	for reason, n := range s.Dropped {
		add("pipeline", dataplane.Drop(reason).String(), n)
	}
	for reason, n := range s.Tunnel.Dropped {
		add("tunnel", wireguard.Reason(reason).String(), n)
	}
	for event, n := range p.paths.prober.Stats() {
		if reason, ok := strings.CutPrefix(disco.Counter(event).String(), "dropped_"); ok {
			add("disco", reason, n)
		}
	}
	u, d := p.socket.Stats(), p.relays.Counters()
	add("udp", "unbound", u.Unbound)
	add("udp", "lost", u.Lost)
	add("udp", "unreachable", u.Unreachable)
	add("udp", "failed", u.Failed)
	add("udp", "overflow", u.Overflows)
	add("relay", "queue_full", d.DroppedPackets)
	add("relay", "no_region", d.NoRegion)
	add("relay", "malformed", d.ShortFrames+d.UnknownFrames)
	if r.stack != nil {
		n := r.stack.Stats()
		add("stack", "link_full", n.LinkDropped)
		add("stack", "socket_full", n.UDPOverflow+n.ICMPOverflow)
		add("stack", "nobody", n.UDPNobody)
		add("stack", "misdelivered", n.Misdelivered)
		add("stack", "malformed", n.Malformed)
	}
	add("routed", "not_sent", r.carried.Dropped.Load())
	if r.device != nil {
		n := r.device.Stats()
		add("device", "malformed", n.Malformed)
		add("device", "refused", n.Refused)
	}
	m.counter("tsnode_dropped_total", "Packets and messages that went no further, by part of the node and reason.", samples...)
}

// queues are what waits.
func (m *metrics) queues(r *runtime, p *plane, s *dataplane.Stats) {
	frames, events := p.paths.prober.Queued()
	length := []Sample{
		value(frames, "queue", "disco_frames"), value(events, "queue", "disco_events"),
		value(s.Answers, "queue", "control_messages"), value(s.Errands, "queue", "icmp"),
		value(s.Tunnel.Results, "queue", "handshakes"), value(p.relays.Queued(), "queue", "relay"),
	}
	bytes := []Sample{value(s.Tunnel.ParkedBytes, "queue", "parked"), value(s.Tunnel.HeldBytes, "queue", "held")}
	if r.stack != nil {
		queued := int64(0)
		for _, l := range r.stack.Links() {
			queued += l.Queued()
		}
		bytes = append(bytes, value(queued, "queue", "link"))
	}
	m.gauge("tsnode_queue_length", "Packets and messages that wait, by queue.", length...)
	m.gauge("tsnode_queue_bytes", "Bytes of packets that wait, by queue.", bytes...)
}
