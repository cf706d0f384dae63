package interop

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// meshLook is how often a client tries whether the relays know of each other's
// clients by now.
const meshLook = 50 * time.Millisecond

// A meshClient is a client at one relay of a region.
type meshClient struct {
	relayClient
	*messageLog
}

// join connects a client to a relay program.
func join(t *testing.T, kind peer.Kind, at *relayProgram, private key.NodePrivate) meshClient {
	t.Helper()
	c, log := reach(t, kind, at.endpoint(), clientOptions{private: private})
	return meshClient{c, log}
}

// meets sends until a packet gets there: a relay hears of the clients of others
// some time after they have come.
func (c meshClient) meets(t *testing.T, other meshClient) {
	t.Helper()
	tick := time.NewTicker(meshLook)
	defer tick.Stop()
	deadline := time.After(messageWait)
	hello := fmt.Appendf(nil, "hello of %v", time.Now())
	for {
		if err := c.Send(other.SelfPublicKey(), hello); err != nil {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no packet gets there in %v", messageWait)
		case r := <-other.ch:
			if r.err != nil {
				t.Fatal(r.err)
			}
			if p, ok := r.Message.(derp.ReceivedPacket); ok && p.Source == c.SelfPublicKey() && bytes.Equal(p.Data, hello) {
				return
			}
		}
	}
}

// meet lets both clients meet each other, and exchanges packets of every size.
func meet(t *testing.T, a, b meshClient) {
	t.Helper()
	a.meets(t, b)
	b.meets(t, a)
	for _, size := range packetSizes {
		data := bytes.Repeat([]byte{byte(size)}, size)
		for _, way := range [][2]meshClient{{a, b}, {b, a}} {
			if err := way[0].Send(way[1].SelfPublicKey(), data); err != nil {
				t.Fatal(err)
			}
			way[1].awaitPacket(t, way[0].SelfPublicKey(), data)
		}
	}
}

// stillHears waits for a packet, and fails if its sender is said to be gone.
func (c meshClient) stillHears(t *testing.T, from meshClient) {
	t.Helper()
	data := []byte("still here")
	if err := from.Send(c.SelfPublicKey(), data); err != nil {
		t.Fatal(err)
	}
	for {
		switch m := c.next(t).(type) {
		case derp.PeerGone:
			if m.Peer == from.SelfPublicKey() {
				t.Errorf("%+v, and it is still in the region", m)
			}
		case derp.ReceivedPacket:
			if bytes.Equal(m.Data, data) {
				return
			}
		}
	}
}

// Our relay program and the reference's forward to each other; a client that
// leaves the region is told gone across the mesh, one that only moves within it is
// reached where it is; either relay is killed under the other, loses its clients
// there, and gets them back (DERP-85..94, DERP-167).
func TestMeshOfBothKinds(t *testing.T) {
	for _, victim := range []int{0, 1} {
		t.Run(fmt.Sprintf("%s relay is killed", relayKinds[victim]), func(t *testing.T) {
			t.Parallel()
			r := startRegion(t, relayKinds...)
			killed, other := r.relays[victim], r.relays[1-victim]
			stays := join(t, peer.Ours, other, key.NewNode())
			loses := join(t, peer.Reference, killed, key.NewNode())
			meet(t, stays, loses)

			leaves := join(t, peer.Reference, killed, key.NewNode())
			meet(t, stays, leaves)
			leaves.relayClient.Close()
			stays.awaitGone(t, leaves.SelfPublicKey(), derp.GoneDisconnected)

			private := key.NewNode()
			before := join(t, peer.Ours, killed, private)
			meet(t, stays, before)
			after := join(t, peer.Ours, other, private)
			before.relayClient.Close()
			stays.stillHears(t, after)
			meet(t, stays, after)

			killed.kill()
			stays.awaitGone(t, loses.SelfPublicKey(), derp.GoneDisconnected)
			loses.awaitError(t)
			meet(t, stays, after)

			killed.start(t)
			loses.messageLog = listen(t, loses.relayClient)
			meet(t, stays, loses)
		})
	}
}

// In a region of three relays of both kinds all clients reach each other, with one
// of the relays gone as well; a client with connections to two of them is reached
// by the one that is left, and gone with that (DERP-02, DERP-91..93).
func TestMeshOfThree(t *testing.T) {
	t.Parallel()
	r := startRegion(t, peer.Ours, peer.Reference, peer.Ours)
	var clients []meshClient
	for i, at := range r.relays {
		clients = append(clients, join(t, relayKinds[i%2], at, key.NewNode()))
	}
	a, b, c := clients[0], clients[1], clients[2]
	meet(t, a, b)
	meet(t, b, c)
	meet(t, c, a)

	private := key.NewNode()
	first := join(t, peer.Ours, r.relays[1], private)
	meet(t, a, first)
	second := join(t, peer.Ours, r.relays[2], private)
	meet(t, c, second)
	first.relayClient.Close()
	meet(t, a, second)
	second.relayClient.Close()
	a.awaitGone(t, private.Public(), derp.GoneDisconnected)

	r.relays[1].kill()
	b.awaitError(t)
	meet(t, c, a)
	moved := join(t, peer.Ours, r.relays[0], key.NewNode())
	meet(t, moved, c)
}

// A relay that ends in good order says so to clients of both kinds, with advice
// when to come back (DERP-17, DERP-152).
func TestOurRelayProgramSaysThatItEnds(t *testing.T) {
	t.Parallel()
	r := startRegion(t, peer.Ours)
	for _, kind := range relayKinds {
		defer func(c meshClient) {
			await(t, c.messageLog, func(m derp.Restarting) bool { return m.TryFor > 0 })
			c.awaitError(t)
		}(join(t, kind, r.relays[0], key.NewNode()))
	}
	r.relays[0].stop(t)
}
