package relay

import (
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestPackets: DERP-167, packets of all sizes over TLS with fast start and over
// plain HTTP.
func TestPackets(t *testing.T) {
	for name, withTLS := range map[string]bool{"TLS": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			st := run(t, withTLS)
			a, b := st.join(t, key.NewNode()), st.join(t, key.NewNode())
			if got := a.ServerKey(); got != st.PublicKey() {
				t.Errorf("server key %v, want %v", got, st.PublicKey())
			}
			for _, n := range []int{0, 1, 1400, 2011, 2012, 30000, 65536} {
				a.send(b.key, strings.Repeat("x", n))
				b.expectPacket(a.key, strings.Repeat("x", n))
			}
			b.send(a.key, "back")
			a.expectPacket(b.key, "back")
			a.send(a.key, "self") // DERP-48
			a.expectPacket(a.key, "self")
			a.sync()
			if s := st.Stats(); s.PacketsReceived != 9 || s.PacketsSent != 9 || s.BytesSent != s.BytesReceived || s.Connections != 2 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}
func disco(text string) string {
	return "TS\U0001f4ac" + strings.Repeat("k", key.Size) + strings.Repeat("n", 24) + text
}

var _ = derp.FramePing
