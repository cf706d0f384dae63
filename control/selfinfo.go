package control

import (
	"net/netip"
	"slices"
	"sort"

	"github.com/seed94491740/tsnode/key"
)

// hostinfo returns the complete current Hostinfo; servers replace what they
// have (CTL-28, CTL-56).
func (c *Client) hostinfo() *Hostinfo {
	h := c.cfg.Hostinfo.Get()
	h.RequestTags = c.cfg.Tags
	h.RoutableIPs = sortedRoutes(h.RoutableIPs)
	n := c.cfg.NetInfo.Get()
	if home := c.cfg.Home.Get(); home != 0 {
		n.PreferredDERP = home
	}
	h.NetInfo = &n
	return &h
}

// sortedRoutes returns the routes in order, each once.
func sortedRoutes(routes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(routes)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Compare(sorted[j]) < 0 })
	return slices.Compact(sorted)
}

// mapRequest returns the request of a poll, or with changes of a lite update:
// both carry the complete current state, because some servers take it from
// one, some from the other (CTL-30).
func (c *Client) mapRequest(k key.NodePublic) *MapRequest {
	r := &MapRequest{
		Version:   CapabilityVersion,
		Compress:  CompressZstd,
		KeepAlive: true,
		NodeKey:   k,
		DiscoKey:  c.cfg.Disco,
		Hostinfo:  c.hostinfo(),
		TKAHead:   c.lockHead.Get(),
	}
	for _, e := range reportable(c.cfg.Endpoints.Get()) {
		r.Endpoints = append(r.Endpoints, e.Addr)
		r.EndpointTypes = append(r.EndpointTypes, e.Type)
	}
	return r
}

// reportable returns the endpoints that mean something to others, each once; a
// loopback address only when there is nothing else (CTL-58).
func reportable(all []Endpoint) []Endpoint {
	var good, loopback []Endpoint
	seen := make(map[netip.AddrPort]bool, len(all))
	for _, e := range all {
		a := e.Addr.Addr()
		if !e.Addr.IsValid() || e.Addr.Port() == 0 || a.Zone() != "" || a.IsLinkLocalUnicast() || a.IsUnspecified() || seen[e.Addr] {
			continue
		}
		seen[e.Addr] = true
		if a.IsLoopback() {
			loopback = append(loopback, e)
		} else {
			good = append(good, e)
		}
	}
	if len(good) == 0 {
		return loopback
	}
	return good
}
