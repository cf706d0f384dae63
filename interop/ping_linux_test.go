package interop

import (
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/ground"
	"github.com/seed94491740/tsnode/interop/peer"
)

// Nodes of both kinds answer each other's pings of every kind, and a few of the
// kind that looks for paths end at a direct one.
func TestPings(t *testing.T) {
	for _, p := range pairs() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			from, to := a.startPair(p, a.host(a.site(ground.FullCone, lastMile), "a"), a.host(a.site(ground.Easy, lastMile), "b"))
			if err := acquaint(from, to); err != nil {
				t.Fatal(err)
			}
			for began := time.Now(); ; {
				pong, err := from.Ping(to, peer.PingDisco)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("pong by %v in %v", pong.Path, pong.Latency.Round(time.Millisecond))
				if pong.Path.Direct.IsValid() {
					break
				}
				if time.Since(began) > referencePatience {
					t.Fatalf("no direct path in %v", referencePatience)
				}
				time.Sleep(lookEvery) // real nodes cannot run in a bubble
			}
			for _, kind := range []string{peer.PingTSMP, peer.PingICMP, peer.PingPeerAPI} {
				pong, err := from.Ping(to, kind)
				if err != nil {
					t.Errorf("%s: %v", kind, err)
				} else if pong.Latency < 4*lastMile || pong.Latency > time.Second {
					t.Errorf("%s: pong in %v, and a round trip takes %v", kind, pong.Latency, 4*lastMile)
				}
			}
		})
	}
}
