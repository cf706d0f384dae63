package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/seed94491740/tsnode/localapi"
)

// metricsOf returns what writes a node's counters (SVC-172).
func metricsOf(n localapi.Node) func(io.Writer) error {
	return func(w io.Writer) error {
		b := bufio.NewWriter(w)
		s := n.Snapshot()
		gauge := func(name, help, labels string, v int) {
			fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s gauge\n%s%s %d\n", name, help, name, name, labels, v)
		}
		gauge("tailscaled_health_messages", "Number of health messages broken down by type.", `{type="warning"}`, len(s.Health))
		gauge("tailscaled_home_derp_region_id", "DERP region ID of the node's home relay server", "", s.HomeRegion)
		gauge("tailscaled_advertised_routes", "Number of advertised network routes (e.g. by a subnet router)", "", len(n.Preferences().AdvertiseRoutes))
		if s.Netmap != nil {
			approved := len(s.Netmap.Self.AllowedIPs) - len(s.Netmap.Self.Addresses)
			gauge("tailscaled_approved_routes", "Number of approved network routes (e.g. by a subnet router)", "", max(0, approved))
			gauge("tsnode_peers", "Number of nodes that this one may see.", "", len(s.Netmap.Peers))
		}
		return b.Flush()
	}
}
