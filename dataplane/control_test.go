package dataplane

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// TestDiscoKeysAreTold covers PATH-21 and PATH-22: the first packet of a new
// keypair, on both sides.
func TestDiscoKeysAreTold(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.wantHooks(t, "after the handshake", "disco d002")
		b.wantHooks(t, "after the handshake", "disco d001")
	})
}

func TestRejectsAreLimited(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		b.learnRules("", a.self())
		quiet()
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		var syns [][]byte
		for i := range 200 {
			syns = append(syns, tcpPacket(fmt.Sprintf("100.64.0.1:%d", 2000+i), "100.64.0.2:80", packet.SYN))
		}
		a.send(syns...)
		if n := len(a.hooks()); n != 20 {
			t.Errorf("%d rejects for 200 SYNs at once, want the burst of 20", n)
		}
		if s := b.d.Stats(); s.Dropped[Limited]+s.Dropped[ControlFull] != 180 {
			t.Errorf("stats %+v", s.Dropped)
		}
	})
}

func TestUnreachable(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.77:80", packet.SYN), udpPacket("100.64.0.1:1", "8.8.8.8:53"))
		got := a.cable.takeInjected()
		if len(got) != 2 {
			t.Fatalf("%d packets for the stack, want 2", len(got))
		}
		var h packet.Header
		if h.Parse(got[0]); !h.IsICMPError(got[0]) || h.Src.Addr().String() != "100.64.0.77" || h.Dst.Addr() != a.addr {
			t.Errorf("%+v", h)
		}
		var many [][]byte
		for range 1000 {
			many = append(many, udpPacket("100.64.0.1:1", "8.8.8.8:53"))
		}
		a.send(many...)
		if n := len(a.cable.takeInjected()); n > 20 {
			t.Errorf("%d unreachables for a thousand packets at once", n)
		}
		if s := a.d.Stats(); s.Dropped[NoRoute] != 1002 {
			t.Errorf("stats %+v", s.Dropped)
		}
	})
}

// TestPing covers SVC-35.
func TestPing(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		b.cable.take()
		for dst, want := range map[string]string{"100.64.0.2": "pong 100.64.0.2 12345678 4000", "fd7a:115c:a1e0::2": "pong fd7a:115c:a1e0::2 12345678 6000"} {
			if err := a.d.SendPing(netip.MustParseAddr(dst), [8]byte([]byte("12345678"))); err != nil {
				t.Fatal(err)
			}
			quiet()
			a.wantHooks(t, "ping "+dst, want)
		}
		if err := a.d.SendPing(netip.MustParseAddr("100.64.0.77"), [8]byte{}); err == nil {
			t.Error("pinged an address nobody owns")
		}
		b.learnRules("", a.self())
		quiet()
		if err := a.d.SendPing(b.addr, [8]byte([]byte("abcdefgh"))); err != nil {
			t.Fatal(err)
		}
		quiet()
		a.wantHooks(t, "whatever the filter says", "pong 100.64.0.2 abcdefgh 4000")
		b.wantReceived(t, "control messages never reach the stack")
	})
}

// TestApplicationsCannotSpeakTSMP covers SVC-37.
func TestApplicationsCannotSpeakTSMP(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		b.hooks()
		forged, err := packet.AppendReject(nil, packet.Reject{Proto: packet.TCP, Reason: packet.RejectACL, Src: netip.MustParseAddrPort("100.64.0.2:1"), Dst: netip.MustParseAddrPort("100.64.0.1:1")})
		if err != nil {
			t.Fatal(err)
		}
		a.send(forged)
		b.wantHooks(t, "a forged reject")
	})
}

// TestLoopedDisco covers PATH-94, in both directions.
func TestLoopedDisco(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		b.cable.take()
		frame := func(n byte) []byte {
			raw := key.DiscoPublicFromRaw([32]byte{0xd0, n}).Raw()
			return append(append([]byte("TS\xf0\x9f\x92\xac"), raw[:]...), make([]byte, 60)...)
		}
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1", frame(1)...), udpPacket("100.64.0.1:1", "100.64.0.2:1", frame(2)...))
		b.wantReceived(t, "the sender's own frame, the receiver's own frame")
		if sent, got := a.d.Stats().Dropped[Looped], b.d.Stats().Dropped[Looped]; sent != 1 || got != 1 {
			t.Errorf("%d dropped by the sender, %d by the receiver, want 1 each", sent, got)
		}
		other := udpPacket("100.64.0.1:1", "100.64.0.2:1", frame(3)...)
		a.send(other)
		b.wantReceived(t, "somebody else's frame", other)
	})
}

// TestVerdictLog covers SVC-31 and SVC-18: few lines, none about other
// addresses.
func TestVerdictLog(t *testing.T) {
	var log lockedBuffer
	pair(t, func(i int, c *Config) {
		if i == 1 {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}, func(t *testing.T, a, b *testNode) {
		exit := a.self()
		exit.AllowedIPs = append(slices.Clone(exit.Addresses), prefixes("0.0.0.0/0")...)
		b.policy.Store(&Policy{ExitNode: exit.StableID})
		b.learnRules("100.64.0.1", exit)
		quiet()
		var pkts [][]byte
		for i := range 50 {
			pkts = append(pkts,
				tcpPacket(fmt.Sprintf("100.64.0.1:%d", 2000+i), "100.64.0.2:80", packet.SYN), udpPacket("8.8.8.8:1", "100.64.0.2:1"),
				tcpPacket("[fd7a:115c:a1e0::1]:1", "[fd7a:115c:a1e0::2]:80", packet.SYN))
		}
		a.send(pkts...)
		text := log.String()
		if n := strings.Count(text, "inbound connection accepted"); n != 3 {
			t.Errorf("%d lines about 50 accepted connections, want the burst of 3", n)
		}
		if n := strings.Count(text, "inbound packet dropped"); n != 10 {
			t.Errorf("%d lines about 100 drops, want the burst of 10", n)
		}
		for _, verdict := range []string{"accepted: rule 0 permits it", "dropped: no rule permits it"} {
			if !strings.Contains(text, verdict) {
				t.Errorf("the log does not say why: %q is missing", verdict)
			}
		}
		if strings.Contains(text, "8.8.8.8") {
			t.Error("an address outside the tailnet is logged")
		}
	})
}

// A lockedBuffer may be written by several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
