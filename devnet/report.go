package devnet

import (
	"bytes"
	"encoding/json"
	"net/netip"

	"github.com/seed94491740/tsnode/control"
)

// maxEndpoints is how many endpoints of a node are kept.
const maxEndpoints = 64

// report takes what a node says about itself in a lite update, or, as Headscale
// does, in a poll (control.md section 8.1).
func (t *tailnet) report(m *member, req *control.MapRequest) {
	t.setHostinfo(m, req.Hostinfo)
	l := *m.live
	l.Cap, l.Disco = req.Version, req.DiscoKey
	if h := req.Hostinfo; h != nil && h.NetInfo != nil && h.NetInfo.PreferredDERP != 0 {
		l.HomeDERP = h.NetInfo.PreferredDERP
	}
	if req.Endpoints != nil || !t.cfg.Headscale { // Headscale: a list left out changes nothing
		l.Endpoints = usableEndpoints(req.Endpoints)
	}
	t.setLive(m, l)
}

// usableEndpoints drops what peers could not use (CTL-58).
func usableEndpoints(all []netip.AddrPort) (usable []netip.AddrPort) {
	for _, e := range all {
		if a := e.Addr(); a.IsValid() && a.Zone() == "" && len(usable) < maxEndpoints {
			usable = append(usable, e)
		}
	}
	return usable
}

// sameJSON compares two values as they are sent.
func sameJSON(a, b *control.Hostinfo) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
