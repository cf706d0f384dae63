package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"tailscale.com/prober"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/probe"
)

const (
	// probeBytes go through each relay and each pair of them: 60 packets of the
	// largest size, half of them in flight at the same time.
	probeBytes = 60 * 65536

	// probeEvery is the interval of the reference's prober, and so what a probe may
	// take.
	probeEvery = 10 * time.Second

	// probeTries is how often the reference's prober runs: it gives a mesh 100 ms
	// to learn of a client, which is little for a busy machine.
	probeTries = 5
)

// The reference's prober finds nothing wrong with our relay, nor with a mesh of
// both kinds: a client can log in, a packet comes as it was sent, and of many
// large ones in flight none is lost (DERP-168).
func TestTheirProbeOfOurRelay(t *testing.T) {
	t.Parallel()
	r := startRegion(t, relayKinds...)
	meet(t, join(t, peer.Ours, r.relays[0], key.NewNode()), join(t, peer.Reference, r.relays[1], key.NewNode()))
	dm := r.derpMap()
	for i, n := range dm.Regions[1].Nodes { // it wants to see a name in TLS
		n.HostName, n.CertName, n.InsecureForTests = fmt.Sprintf("relay%d.test", i), "", true
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(dm) }))
	defer srv.Close()
	for try := 1; ; try++ {
		bad, all := theirProbe(t, srv.URL)
		if all != 2*2*2+1 {
			t.Fatalf("the prober made %d probes, want one of the map, and two for each pair of relays", all)
		}
		if len(bad) == 0 {
			return
		}
		if try == probeTries {
			t.Fatalf("in the last of %d tries: %v", try, bad)
		}
	}
}

// theirProbe runs the reference's prober once, and returns what failed and how
// many probes there were.
func theirProbe(t *testing.T, mapURL string) (bad []string, all int) {
	t.Helper()
	p := prober.New().WithOnce(true)
	d, err := prober.DERP(p, mapURL, prober.WithMeshProbing(probeEvery), prober.WithBandwidthProbing(probeEvery, probeBytes, ""))
	if err != nil {
		t.Fatal(err)
	}
	p.Run("map", probeEvery, nil, d.ProbeMap)
	p.Wait()
	infos := p.ProbeInfo()
	for name, info := range infos {
		if info.Status != prober.ProbeStatusSucceeded {
			bad = append(bad, fmt.Sprintf("%s: %s %s", name, info.Status, info.Error))
		}
	}
	return bad, len(infos)
}

// Our prober finds nothing wrong with a mesh of both kinds of relays, by
// DERP and by WebSocket (DERP-168).
func TestOurProbeOfTheirRelay(t *testing.T) {
	t.Parallel()
	r := startRegion(t, relayKinds...)
	meet(t, join(t, peer.Ours, r.relays[0], key.NewNode()), join(t, peer.Reference, r.relays[1], key.NewNode()))
	report, err := probe.Run(t.Context(), probe.Config{
		Map: asOurs(t, r.derpMap()), Mesh: true, WebSocket: true, NoSTUN: true, Logger: testLog(t, "probe"),
		Bandwidth: probe.Bandwidth{Bytes: probeBytes, PacketSize: 65536},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Relays) != 2 || len(report.Pairs) != 2 {
		t.Errorf("measured %d relays and %d pairs, want 2 of each", len(report.Relays), len(report.Pairs))
	}
	if !report.OK() {
		t.Errorf("%v", report)
	}
}
