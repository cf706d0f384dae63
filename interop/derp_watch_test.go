package interop

import (
	"context"
	"maps"
	"testing"

	tsderp "tailscale.com/derp"
	tskey "tailscale.com/types/key"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// A watchLog is what a watch loop of either kind tells.
type watchLog struct {
	added   chan key.NodePublic
	removed chan derp.PeerGone
	failed  chan error
}

// watchLoop runs the watch loop of a client until the test ends. done is closed
// when it has ended.
func watchLoop(t *testing.T, kind peer.Kind, rl *testRelay, private key.NodePrivate, ignore key.NodePublic) (w watchLog, done chan struct{}) {
	t.Helper()
	w = watchLog{make(chan key.NodePublic, maxMessages), make(chan derp.PeerGone, maxMessages), make(chan error, maxMessages)}
	done = make(chan struct{})
	c := newRelayClient(t, kind, rl, clientOptions{private: private, mesh: true})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		c.Close()
		<-done
	})
	notify := func(err error) { w.failed <- err }
	go func() {
		defer close(done)
		switch c := c.(type) {
		case referenceClient:
			c.RunWatchConnectionLoop(ctx, asTheirKey(ignore), nil,
				func(m tsderp.PeerPresentMessage) { w.added <- asOurKey(m.Key) },
				func(m tsderp.PeerGoneMessage) { w.removed <- asOurMessage(m).(derp.PeerGone) }, notify)
		case *derp.Client:
			c.RunWatchLoop(ctx, derp.WatchOptions{
				IgnoreServerKey: ignore,
				Add:             func(m derp.PeerPresent) { w.added <- m.Peer },
				Remove:          func(m derp.PeerGone) { w.removed <- m },
				NotifyError:     notify,
			})
		}
	}()
	return w, done
}

// take waits for n values, and returns how often each came.
func take[T comparable](t *testing.T, from chan T, n int) map[T]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), messageWait)
	defer cancel()
	got := make(map[T]int)
	for range n {
		select {
		case v := <-from:
			got[v]++
		case <-ctx.Done():
			t.Fatalf("%v and no more in %v, want %d", got, messageWait, n)
		}
	}
	return got
}

// A watch loop's account is exact over a break of its connection: who was added is
// removed, with the reason that the connection broke, and added again (DERP-94,
// DERP-172). A loop on the relay that it is to ignore ends.
func TestDERPWatchLoop(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		private := key.NewNode()
		closer, _ := reach(t, client, rl, clientOptions{mesh: true})
		c, _ := reach(t, client, rl, clientOptions{})
		w, _ := watchLoop(t, client, rl, private, key.NodePublic{})
		all := map[key.NodePublic]int{closer.SelfPublicKey(): 1, c.SelfPublicKey(): 1, private.Public(): 1}
		if got := take(t, w.added, len(all)); !maps.Equal(got, all) {
			t.Errorf("added %v, want %v", got, all)
		}
		visitor, _ := reach(t, client, rl, clientOptions{})
		if got := take(t, w.added, 1); got[visitor.SelfPublicKey()] != 1 {
			t.Errorf("added %v, want the visitor", got)
		}
		visitor.Close()
		if got := take(t, w.removed, 1); got[derp.PeerGone{Peer: visitor.SelfPublicKey(), Reason: derp.GoneDisconnected}] != 1 {
			t.Errorf("removed %v, want the visitor", got)
		}

		if err := closer.ClosePeer(private.Public()); err != nil {
			t.Fatal(err)
		}
		take(t, w.failed, 1)
		gone := take(t, w.removed, len(all))
		for k := range all {
			if gone[derp.PeerGone{Peer: k, Reason: derp.GoneMeshConnBroke}] != 1 {
				t.Errorf("removed %v, want all as the connection broke", gone)
			}
		}
		if got := take(t, w.added, len(all)); !maps.Equal(got, all) {
			t.Errorf("added again %v, want %v", got, all)
		}

		_, done := watchLoop(t, client, rl, key.NewNode(), rl.key)
		<-done
	})
}

// The reference's relay reads from our login what we mean (DERP-19), and the
// reference's client what our relay allows it to send (DERP-21, DERP-68).
func TestDERPLoginIsUnderstood(t *testing.T) {
	t.Parallel()
	rl := newReferenceRelay(t, plainHTTP)
	infos := make(chan tsderp.ClientInfo, 1)
	rl.reference.ForTest().SetOnClientInfo(func(_ tskey.NodePublic, info tsderp.ClientInfo) { infos <- info })
	rl.serve(t)
	c := newOurs(t, rl, clientOptions{private: key.NewNode(), mesh: true, prober: true})
	defer c.Close()
	c.SetCanAckPings(true)
	listen(t, c)
	got := <-infos
	if want := (tsderp.ClientInfo{MeshKey: theirMeshKey(t), Version: derp.ProtocolVersion, CanAckPings: true, IsProber: true}); !got.Equal(&want) {
		t.Errorf("their relay reads %+v, want %+v", got, want)
	}

	limited := startOurRelay(t, plainHTTP, relay.Options{
		RateLimit: relay.RateLimit{BytesPerSecond: 1 << 20, Burst: 1 << 17}, AdvertiseRateLimit: true,
	})
	theirs := newRelayClient(t, peer.Reference, limited, clientOptions{})
	m, err := theirs.Recv()
	if want := (derp.ServerInfo{TokenBucketBytesPerSecond: 1 << 20, TokenBucketBytesBurst: 1 << 17}); err != nil || m != want {
		t.Errorf("their client reads %+v, %v; want %+v", m, err, want)
	}
}
