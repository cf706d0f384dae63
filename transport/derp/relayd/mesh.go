package relayd

import (
	"fmt"
	"net/url"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/mesh"
)

// addLinks makes a link to each other relay of the region (DERP-149).
func (d *Daemon) addLinks() error {
	for _, peer := range d.plan.peers {
		l, err := mesh.NewLink(mesh.Config{
			Server: d.relay, Private: d.plan.private, MeshKey: d.plan.meshKey, Logger: d.log,
			URL:    (&url.URL{Scheme: "https", Host: peer.host, Path: "/derp"}).String(),
			Dialer: &derp.Dialer{Network: host.OS{}, Roots: d.plan.roots, DialHost: peer.dial},
		})
		if err != nil {
			return err
		}
		d.links = append(d.links, l)
	}
	return nil
}

// meshVars are the counters of the mesh links, each by link.
func (d *Daemon) meshVars() map[string]map[string]uint64 {
	vars := make(map[string]map[string]uint64)
	for _, l := range d.links {
		st := l.Stats()
		connected := uint64(0)
		if st.Connected {
			connected = 1
		}
		values := map[string]uint64{
			"gauge_connected":           connected,
			"gauge_peers":               uint64(st.Peers),
			"gauge_queued_packets":      uint64(st.Queued),
			"counter_connects":          st.Connects,
			"counter_packets_forwarded": st.Forwarded,
			"counter_packets_written":   st.Written,
			"counter_packets_confirmed": st.Confirmed,
			"counter_packets_lost":      st.Lost,
		}
		for reason, n := range st.Dropped {
			values["counter_packets_dropped_"+mesh.DropReason(reason).String()] = n
		}
		for name, v := range values {
			if vars[name] == nil {
				vars[name] = make(map[string]uint64)
			}
			vars[name][st.URL] = v
		}
	}
	return vars
}

// describeLink says for people how a link is.
func describeLink(st mesh.LinkStats) string {
	switch {
	case st.Self:
		return st.URL + ": this relay itself"
	case st.Connected:
		return fmt.Sprintf("%s: connected since %v, %d clients there", st.URL, st.Since.UTC().Format("2006-01-02 15:04:05 MST"), st.Peers)
	case st.LastError != "":
		return st.URL + ": not connected: " + st.LastError
	}
	return st.URL + ": not connected yet"
}
