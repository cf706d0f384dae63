package node

import (
	"cmp"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/disco"
	"github.com/seed94491740/tsnode/netmap"
)

// maxPeerSeries is for how many peers there are series of their own: those that
// were heard from last.
const maxPeerSeries = 100

// underlays are the metrics of sockets and relays.
func (m *metrics) underlays(p *plane) {
	u, d := p.socket.Stats(), p.relays.Counters()
	m.counter("tsnode_udp_datagrams_total", "Datagrams of the UDP sockets, by direction.",
		value(u.Received, "direction", "inbound"), value(u.Sent, "direction", "outbound"))
	m.counter("tsnode_udp_rebinds_total", "Times that a broken UDP socket was bound anew.", value(u.Rebinds))
	m.counter("tsnode_relay_packets_total", "Packets of the relays, by direction.",
		value(d.ReceivedPackets, "direction", "inbound"), value(d.SentPackets, "direction", "outbound"))
	status := p.relays.Status().Get()
	var connected, connections []Sample
	for _, r := range status.Regions {
		region := cmp.Or(r.Code, "unknown")
		up := truth(r.Connected)
		up.Labels = []Label{{"region", region}}
		connected = append(connected, up)
		connections = append(connections, value(uint64(r.Generation), "region", region))
	}
	m.gauge("tsnode_relay_home_connected", "Whether the node can be reached through its home relay.", truth(status.HomeConnected))
	m.gauge("tsnode_relay_connected", "Whether a relay region in use is connected.", connected...)
	m.counter("tsnode_relay_connections_total", "Connections that were made to a relay region in use.", connections...)
}

// paths are the metrics of what finds paths.
func (m *metrics) paths(p *plane) {
	var samples []Sample
	for event, n := range p.paths.prober.Stats() {
		if name := disco.Counter(event).String(); !strings.HasPrefix(name, "dropped_") {
			samples = append(samples, value(n, "event", name))
		}
	}
	m.counter("tsnode_disco_total", "Events of path discovery.", samples...)
	f, c, w := p.paths.finder.Stats(), p.paths.checker.Stats(), p.paths.mapper.Stats()
	m.counter("tsnode_netcheck_reports_total", "Reports on the network around, by kind.",
		value(c.Reports.Load()-c.FullReports.Load(), "kind", "incremental"), value(c.FullReports.Load(), "kind", "full"))
	m.counter("tsnode_netcheck_errors_total", "Reports on the network around that failed.", value(c.ReportErrors.Load()))
	m.counter("tsnode_home_changes_total", "Changes of the home region.", value(f.HomeChanges.Load()))
	m.counter("tsnode_portmap_attempts_total", "Attempts to get a port of the home router.", value(w.Attempts.Load()))
	m.counter("tsnode_portmap_granted_total", "Attempts to get a port of the home router that had one.", value(w.Granted.Load()))
}

// A talkingPeer is a peer with what the pipeline knows of it.
type talkingPeer struct {
	name string
	dataplane.PeerStatus
}

// peers are series for the peers that were heard from last.
func (m *metrics) peers(r *runtime, p *plane) {
	all := talkingPeers(r.netmap(), p)
	slices.SortFunc(all, func(a, b talkingPeer) int { return b.LastHeard.Compare(a.LastHeard) })
	shown := all[:min(len(all), maxPeerSeries)]
	slices.SortFunc(shown, func(a, b talkingPeer) int { return strings.Compare(a.name, b.name) })
	var paths, received, sent []Sample
	for i := range shown {
		t := &shown[i]
		if best := t.Path.Best; !best.IsZero() {
			paths = append(paths, value(1, "peer", t.name, "path", dataplane.KindOf(best).String()))
		}
		received = append(received, value(t.RxBytes, "peer", t.name))
		sent = append(sent, value(t.TxBytes, "peer", t.name))
	}
	m.gauge("tsnode_peer_path", "1 for the path that packets to a peer take now.", paths...)
	m.counter("tsnode_peer_inbound_bytes_total", "Bytes of the tunnel's datagrams from a peer.", received...)
	m.counter("tsnode_peer_outbound_bytes_total", "Bytes of the tunnel's datagrams to a peer.", sent...)
	m.gauge("tsnode_peers_without_series", "Peers that were talked to, and are too many to have series of their own.", value(len(all)-len(shown)))
}

// talkingPeers are the peers that were talked to. Names that two of them share, as
// shared nodes may, are told apart by the nodes' IDs.
func talkingPeers(nm *netmap.Netmap, p *plane) (all []talkingPeer) {
	if nm == nil {
		return nil
	}
	seen := make(map[string]bool)
	for _, peer := range nm.Peers {
		d, ok := p.data.Peer(peer.Key)
		if !ok || d.RxBytes+d.TxBytes == 0 {
			continue
		}
		name := trimDot(peer.Name)
		if name == "" || seen[name] {
			name = strings.TrimPrefix(name+" "+string(peer.StableID), " ")
		}
		seen[name] = true
		all = append(all, talkingPeer{name, d})
	}
	return all
}
