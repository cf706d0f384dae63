package interop

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/transport/derp"
)

// packetSizes are those of DERP-167, in bytes.
var packetSizes = []int{0, 1, 1400, 30000, derp.MaxPacketSize}

// maxReferenceMessage is the largest WebSocket message in bytes that code of the
// reference reads (DERP-101).
const maxReferenceMessage = 32768

// Clients and relays of both kinds understand each other in every way to connect
// and with packets of every size: DERP-167's matrix, in which each relay has one
// client of either kind.
func TestDERPMatrix(t *testing.T) {
	for _, kind := range relayKinds {
		for _, w := range ways {
			t.Run(fmt.Sprintf("%s relay, %s", kind, w), func(t *testing.T) {
				t.Parallel()
				rl := startRelay(t, kind, w)
				a := listen(t, newPacketClient(t, peer.Ours, rl))
				b := listen(t, newPacketClient(t, peer.Reference, rl))
				for _, size := range packetSizes {
					if w == webSocket && kind == peer.Reference && size > maxReferenceMessage {
						continue // TestWebSocketMessageLimit
					}
					carry(t, a, b, size)
					carry(t, b, a, size)
				}
				wantFastStarts := int64(0)
				if w == fastStart {
					wantFastStarts = 2
				}
				if got := rl.fastStarts.Load(); got != wantFastStarts {
					t.Errorf("%d clients started fast, want %d", got, wantFastStarts)
				}
			})
		}
	}
}

// carry sends one packet of a size from one client to another.
func carry(t *testing.T, from, to *messageLog, size int) {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	if err := from.client.Send(to.client.SelfPublicKey(), data); err != nil {
		t.Fatalf("send %d bytes: %v", size, err)
	}
	m := to.next(t)
	p, ok := m.(derp.ReceivedPacket)
	if !ok || p.Source != from.client.SelfPublicKey() || !bytes.Equal(p.Data, data) {
		t.Fatalf("%d bytes became %T of %d bytes from %v", size, m, len(p.Data), p.Source)
	}
}

// Over WebSocket the reference's own ends cannot exchange the largest packets:
// one message takes a whole packet, and they read no more than 32 KiB of one.
// Ours send smaller messages and read larger ones, so that two of our clients
// can, even through a relay of the reference (DERP-101).
func TestWebSocketMessageLimit(t *testing.T) {
	t.Parallel()
	rl := startRelay(t, peer.Reference, webSocket)
	a, b := listen(t, newPacketClient(t, peer.Ours, rl)), listen(t, newPacketClient(t, peer.Ours, rl))
	carry(t, a, b, derp.MaxPacketSize)

	c := listen(t, newPacketClient(t, peer.Reference, rl))
	if err := a.client.Send(c.client.SelfPublicKey(), make([]byte, derp.MaxPacketSize)); err != nil {
		t.Fatal(err)
	}
	c.awaitError(t)
}
