package relayd

import (
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp/relayd/certs"
	"github.com/seed94491740/tsnode/transport/stun"
)

// customRegion is the ID of the region in a map that an operator adds to:
// control servers leave 900 to 999 to them.
const customRegion = 900

// Map returns the DERP map of the relay alone: what is pasted into the policy of
// a tailnet or given to tsnode netcheck. A self-signed certificate is pinned in
// it.
func (d *Daemon) Map() *netmap.DERPMap {
	n := d.mapNode()
	return &netmap.DERPMap{Regions: map[int]*netmap.Region{customRegion: {
		RegionID: customRegion, RegionCode: "custom", RegionName: "Custom relay", Nodes: []*netmap.DERPNode{&n},
	}}}
}

// mapNode returns the relay as a DERP map shows it.
func (d *Daemon) mapNode() netmap.DERPNode {
	p := d.plan
	n := netmap.DERPNode{Name: "custom", RegionID: customRegion, HostName: p.Hostname}
	if files, ok := d.certs.(*certs.Files); ok {
		n = files.MapNode()
	}
	if ip, err := netip.ParseAddr(p.Hostname); err == nil {
		n.IPv4, n.IPv6 = ip.String(), "none"
		if ip.Is6() {
			n.IPv4, n.IPv6 = n.IPv6, n.IPv4
		}
	}
	if port := int(p.listen.Port()); port != httpsPort && p.tls() {
		n.DERPPort = port
	}
	n.CanPort80 = p.HTTPPort == 80 && p.tls()
	switch {
	case !p.STUN:
		n.STUNPort = -1
	case p.STUNPort != stun.DefaultPort:
		n.STUNPort = p.STUNPort
	}
	return n
}
