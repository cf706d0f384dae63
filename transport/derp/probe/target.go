package probe

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
)

// A target is one relay to measure.
type target struct {
	name   string
	region int // 0 for a relay given by its URL
	node   *netmap.DERPNode
	plain  bool // no TLS
}

// dialer returns what connects to the relay.
func (p *prober) dialer(t *target) *derp.Dialer {
	return &derp.Dialer{Network: p.Network, Roots: p.Roots, PlainHTTP: t.plain}
}

// alone returns a region that has no other relay.
func (t *target) alone() *netmap.Region {
	return &netmap.Region{RegionID: t.region, Nodes: []*netmap.DERPNode{t.node}}
}

var errNothing = errors.New("probe: nothing to measure: give a URL, or a DERP map with a relay in it")

func targetsOf(c Config) ([]*target, error) {
	var ts []*target
	for _, raw := range c.URLs {
		t, err := targetAt(raw)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	if c.Map != nil {
		for _, id := range slices.Sorted(maps.Keys(c.Map.Regions)) {
			ts = append(ts, targetsIn(id, c.Map.Regions[id])...)
		}
	}
	if len(ts) == 0 {
		return nil, errNothing
	}
	return ts, nil
}

// targetAt returns the relay at a URL.
func targetAt(raw string) (*target, error) {
	u, err := derp.ParseURL(raw)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if u.Path != "/derp" && u.Path != "/" {
		return nil, fmt.Errorf("probe: URL %q: path is %q, want /derp or none", raw, u.Path)
	}
	n := &netmap.DERPNode{Name: u.Hostname(), HostName: u.Hostname()}
	switch {
	case u.Port() != "":
		n.DERPPort, _ = strconv.Atoi(u.Port()) // ParseURL has seen it
	case u.Scheme == "http":
		n.DERPPort = 80
	}
	return &target{name: u.Redacted(), node: n, plain: u.Scheme == "http"}, nil
}

// targetsIn returns the relays of a region of a map.
func targetsIn(id int, r *netmap.Region) []*target {
	var ts []*target
	if r == nil {
		return nil
	}
	for _, n := range r.Nodes {
		if n != nil && n.HostName != "" && !n.STUNOnly {
			ts = append(ts, &target{name: n.Name, region: id, node: n})
		}
	}
	return ts
}

// A pair is two relays of one region.
type pair struct{ from, to *target }

// pairs returns each ordered pair of relays that a mesh joins.
func (p *prober) pairs(ts []*target) []pair {
	var ps []pair
	if !p.Mesh {
		return nil
	}
	for _, from := range ts {
		for _, to := range ts {
			if from != to && from.region == to.region {
				ps = append(ps, pair{from, to})
			}
		}
	}
	return ps
}
