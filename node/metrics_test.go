package node

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
)

var metricName = regexp.MustCompile(`^(tailscaled|tsnode)_[a-z0-9_]+$`)

// series returns the values of metrics by name and labels, and complains about what
// Prometheus would not take: a family or a series twice, labels that differ within
// a family, a counter whose name does not say so.
func series(t *testing.T, all []Metric) map[string]float64 {
	t.Helper()
	families, values := make(map[string]bool), make(map[string]float64)
	for _, m := range all {
		counts := regexp.MustCompile(`_total$`).MatchString(m.Name)
		if !metricName.MatchString(m.Name) || m.Help == "" || families[m.Name] || counts != m.Counter {
			t.Errorf("family %q, twice %v, counter %v, help %q", m.Name, families[m.Name], m.Counter, m.Help)
		}
		families[m.Name] = true
		labels := ""
		for i, s := range m.Samples {
			names, text := "", m.Name
			for _, l := range s.Labels {
				names, text = names+" "+l.Name, text+fmt.Sprintf(" %s=%s", l.Name, l.Value)
			}
			if i > 0 && names != labels {
				t.Errorf("%s has labels%s and%s", m.Name, labels, names)
			}
			if _, twice := values[text]; twice {
				t.Errorf("%s twice", text)
			}
			labels, values[text] = names, s.Value
		}
	}
	return values
}

// What a node counts is told under the names of SVC-172, and as our own (SVC-173):
// the traffic of two nodes, by path and by peer.
func TestMetrics(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	newNode := func(name string) *Node {
		n := &Node{
			Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
			Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b := newNode("alpha"), newNode("beta")
	if got := a.Metrics(); got != nil {
		t.Errorf("before Start: %v", got)
	}
	for _, n := range []*Node{a, b} {
		if _, err := n.Up(ctx); err != nil {
			t.Fatal(err)
		}
	}
	before := series(t, a.Metrics())
	if _, err := a.Ping(ctx, "beta", PingTSMP); err != nil {
		t.Fatal(err)
	}
	after := series(t, a.Metrics())
	sum := func(name string) (n float64) {
		for _, path := range []string{"direct_ipv4", "direct_ipv6", "derp", "peer_relay_ipv4", "peer_relay_ipv6"} {
			v, ok := after[name+" path="+path]
			if !ok {
				t.Errorf("no %s for path %s", name, path)
			}
			n += v
		}
		return n
	}
	for _, name := range []string{"inbound_packets", "inbound_bytes", "outbound_packets", "outbound_bytes"} {
		if sum("tailscaled_"+name+"_total") == 0 {
			t.Errorf("no %s", name)
		}
	}
	beta := b.Status().Self.Name
	for name, want := range map[string]float64{
		"tsnode_running": 1, "tsnode_control_connected": 1, "tsnode_handshakes_total": 1, "tsnode_sessions": 1, "tsnode_peers": 1,
		"tsnode_actor_restarts_total actor=wireguard.Engine": 0, "tsnode_actor_restarts_total actor=control.Client": 0,
		"tailscaled_inbound_dropped_packets_total reason=acl": 0, "tsnode_peers_without_series": 0,
		"tailscaled_advertised_routes": 0, "tailscaled_approved_routes": 0, "tsnode_queue_length queue=relay": 0,
	} {
		if got, ok := after[name]; !ok || got != want {
			t.Errorf("%s is %v, %v, want %v", name, got, ok, want)
		}
	}
	if after["tsnode_peer_outbound_bytes_total peer="+beta] == 0 || before["tsnode_handshakes_total"] != 0 {
		t.Errorf("of the peer: %v, handshakes before %v", after["tsnode_peer_outbound_bytes_total peer="+beta], before["tsnode_handshakes_total"])
	}
}

// A failed actor shows in the metrics, and the series of peers are bounded.
func TestMetricsOfRestarts(t *testing.T) {
	by := newSaboteur()
	tailnet := devnet.New(t, devnet.Config{})
	n := &Node{
		Hostname: "fails", ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}),
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }, seams: seams{sabotage: by.wrap},
	}
	t.Cleanup(func() { n.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.Up(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disco.Prober", "host.Monitor"} {
		by.strike(t, name)
		if got := series(t, n.Metrics())["tsnode_actor_restarts_total actor="+name]; got != 1 {
			t.Errorf("%s was restarted %v times", name, got)
		}
	}
}

// Status counts the peers that are reached without a relay, for a node without one
// to be ready all the same.
func TestDirectPathsAreCounted(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, b := g.join(g.net.AddHost("a", simnet.HostConfig{})), g.join(g.net.AddHost("b", simnet.HostConfig{}))
		time.Sleep(settled) // fake time
		if st := a.Status(); st.DirectPaths != 0 || !st.Relayed {
			t.Errorf("before any traffic: %d direct paths, relayed %v", st.DirectPaths, st.Relayed)
		}
		flow := a.send(b, 7, 10*time.Millisecond)
		defer flow.end()
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		if err := g.tailnet.StopRelay(1); err != nil {
			t.Fatal(err)
		}
		g.tailnet.StopControl()
		time.Sleep(10 * time.Second) // fake time
		if st := a.Status(); st.DirectPaths != 1 || st.Relayed || st.State != StateRunning {
			t.Errorf("without relay and control: %d direct paths, relayed %v, %v", st.DirectPaths, st.Relayed, st.State)
		}
		if got := series(t, a.Metrics())["tsnode_control_problems_total"]; got == 0 {
			t.Error("no problem of control is counted")
		}
	})
}
