package dataplane

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// TestLearnedRelay covers PATH-65: a peer whose home is unknown is answered
// through the relay it was heard through.
func TestLearnedRelay(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		homeless := a.self()
		homeless.HomeDERP, homeless.Disco = 0, key.DiscoPublicFromRaw([32]byte{1})
		b.learn(homeless)
		quiet()
		b.send(udpPacket("100.64.0.2:1", "100.64.0.1:1"))
		a.wantReceived(t, "no way to the peer")
		if b.d.Stats().Dropped[NoPath] == 0 {
			t.Error("a packet without path is not counted")
		}
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		time.Sleep(10 * time.Second) // the handshake is tried again
		quiet()
		if n := len(b.cable.take()); n != 1 {
			t.Errorf("%d packets through the relay", n)
		}
		if s, _ := b.d.Peer(a.key); s.Path.Best.Region != 2 {
			t.Errorf("path %+v, want the relay the peer was heard through", s.Path)
		}
	})
}

// TestDirectUDP covers Config.DirectUDP: a is told where b is, b learns where a
// is.
func TestDirectUDP(t *testing.T) {
	pair(t, func(i int, c *Config) {
		if i == 0 {
			c.DirectUDP = map[key.NodePublic]netip.AddrPort{} // filled below: keys are random
		}
	}, func(t *testing.T, a, b *testNode) {
		a.d.config.DirectUDP[b.key] = b.udp
		b.d.config.DirectUDP = map[key.NodePublic]netip.AddrPort{a.key: {}}
		a.learn()
		quiet()
		a.learn(b.self())
		quiet()
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		b.wantReceived(t, "direct", pkt)
		for _, n := range []*testNode{a, b} {
			for _, to := range n.sent {
				if to.IsDERP() {
					t.Errorf("%v sent through relay %d", n.addr, to.Region)
				}
			}
		}
		if s, _ := b.d.Peer(a.key); s.Path.Best.Addr != a.udp {
			t.Errorf("b's path to a: %+v", s.Path)
		}
	})
}

// TestSetPath covers the seam of path selection.
func TestSetPath(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		if !a.d.SetPath(b.key, &Path{Best: transport.Endpoint{Addr: b.udp}}) || a.d.SetPath(testKey(1), nil) {
			t.Error("SetPath tells peers apart wrongly")
		}
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		b.wantReceived(t, "by the path that was set", pkt)
		a.mu.Lock()
		sent := slices.Clone(a.sent)
		a.mu.Unlock()
		for _, to := range sent {
			if to.Addr != b.udp {
				t.Errorf("sent to %+v", to)
			}
		}
		a.d.SetPath(b.key, nil)
		if s, _ := a.d.Peer(b.key); s.Path.Best.Region != 2 {
			t.Errorf("path %+v, want the home relay again", s.Path)
		}
	})
}

// TestSending covers the hook that tells which peers are in use (PATH-34).
func TestSending(t *testing.T) {
	var calls []time.Duration
	var began time.Time
	pair(t, func(i int, c *Config) {
		if i == 0 {
			c.Hooks.Sending = func(key.NodePublic) { calls = append(calls, time.Since(began)) }
		}
	}, func(t *testing.T, a, b *testNode) {
		began = time.Now()
		for range 12 {
			a.cable.put(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
			time.Sleep(100 * time.Millisecond) // fake time
		}
		if want := []time.Duration{0, 500 * time.Millisecond, time.Second}; !slices.Equal(calls, want) {
			t.Errorf("called at %v, want %v", calls, want)
		}
	})
}

// TestUnreachablePath covers PATH-60: a path out of reach is forgotten, and the
// data takes the relay.
func TestUnreachablePath(t *testing.T) {
	var lost []transport.Endpoint
	pair(t, func(i int, c *Config) {
		if i == 0 {
			c.Hooks.Unreachable = func(_ key.NodePublic, to transport.Endpoint) { lost = append(lost, to) }
		}
	}, func(t *testing.T, a, b *testNode) {
		nowhere := transport.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.99:9")}
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		b.wantReceived(t, "through the relay", pkt)
		a.d.SetPath(b.key, &Path{Best: nowhere})
		a.send(pkt)
		if !slices.Equal(lost, []transport.Endpoint{nowhere}) {
			t.Errorf("hook was called for %v", lost)
		}
		b.wantReceived(t, "nowhere")
		a.send(pkt)
		b.wantReceived(t, "through the relay again", pkt)
	})
}

// TestLastHeard covers what path selection asks about a peer.
func TestLastHeard(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		if at, _ := b.d.LastHeard(a.key); !at.IsZero() {
			t.Errorf("heard at %v before anything was sent", at)
		}
		a.d.SetPath(b.key, &Path{Best: transport.Endpoint{Addr: b.udp}})
		sent := time.Now()
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		time.Sleep(3 * time.Second) // fake time
		at, from := b.d.LastHeard(a.key)
		if sent.Sub(at).Abs() > 100*time.Millisecond || from.Addr != a.udp {
			t.Errorf("heard at %v from %+v, want %v from %v", at, from, sent, a.udp)
		}
		if at, _ := b.d.LastHeard(testKey(1)); !at.IsZero() {
			t.Error("heard from a stranger")
		}
	})
}

// TestOtherProtocols covers what leaves a receiver before the tunnel.
func TestOtherProtocols(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		frame := unhex(t, discoPing)
		stun := append([]byte{1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
		relay := func(k key.NodePublic) transport.Endpoint { return transport.Endpoint{Region: 9, Key: k} }
		direct := transport.Endpoint{Addr: a.udp}
		r := b.d.NewReceiver()
		r.Receive(direct, frame, 0, 0)
		r.Receive(direct, stun, 0, 0)
		r.Receive(direct, append(unhex(t, "00807a110a0b0c00"), frame...), 0, 0)
		r.Receive(relay(a.key), frame, 0, 0)
		r.Receive(relay(testKey(5)), frame, 0, 0)
		r.Receive(relay(a.key), stun, 0, 0) // no STUN over a relay: an unknown WireGuard message
		r.Receive(direct, nil, 0, 0)
		r.Receive(direct, slices.Concat(stun, stun, stun[:10]), len(stun), 0)
		r.Flush()
		b.wantHooks(t, "one of each",
			"frame of 124 from region 0 vni 0, control false", "stun 20", "frame of 124 from region 0 vni 658188, control true",
			"frame of 124 from region 9 vni 0, control false", "stun 20", "stun 20")
		if n := b.d.Stats().Dropped[UnknownSender]; n != 1 {
			t.Errorf("%d packets of unknown relay clients", n)
		}
	})
}

// TestMixedRun: one read of the socket may hold disco between transport
// messages.
func TestMixedRun(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.d.SetPath(b.key, &Path{Best: transport.Endpoint{Addr: b.udp}})
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		b.cable.take()
		b.hooks()
		// Take the next datagrams off the wire and join them by hand.
		held := &testNode{in: make(chan datagram, 16), key: b.key, udp: b.udp}
		a.wire.byUDP[b.udp] = held
		payload := make([]byte, 128-32-28)
		one, two := udpPacket("100.64.0.1:1", "100.64.0.2:1", payload...), udpPacket("100.64.0.1:1", "100.64.0.2:2", payload...)
		a.send(one, two)
		first, second := <-held.in, <-held.in
		frame := append(unhex(t, discoPing), 0, 0, 0, 0) // as long as a padded datagram
		if len(first.b) != len(frame) || len(second.b) != len(frame) {
			t.Fatalf("datagrams of %d and %d bytes, want %d", len(first.b), len(second.b), len(frame))
		}
		r := b.d.NewReceiver()
		r.Receive(transport.Endpoint{Addr: a.udp}, slices.Concat(first.b, frame, frame, second.b), len(frame), 0)
		r.Flush()
		b.wantReceived(t, "around the disco frames", one, two)
		b.wantHooks(t, "between transport messages", "frame of 128 from region 0 vni 0, control false", "frame of 128 from region 0 vni 0, control false")
	})
}

// A responses is an Underlay that notes where handshake responses go, and may
// lose them.
type responses struct {
	transport.Underlay
	lose atomic.Bool
	mu   sync.Mutex
	to   []transport.Endpoint
}

func (r *responses) Send(to transport.Endpoint, bursts []packet.Burst) error {
	if len(bursts) > 0 && bursts[0].Datagram(0)[0] == 2 { // wireguard.md section 1.2
		r.mu.Lock()
		r.to = append(r.to, to)
		r.mu.Unlock()
		if r.lose.Load() {
			return nil
		}
	}
	return r.Underlay.Send(to, bursts)
}

// take returns where responses went since the last take.
func (r *responses) take() []transport.Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := r.to
	r.to = nil
	return to
}

// TestResponseTakesOneWay: a handshake response goes back to where the
// initiation came from, alone; the next one goes all ways if the first was not
// confirmed (WG-32).
func TestResponseTakesOneWay(t *testing.T) {
	var answers responses
	pair(t, func(i int, c *Config) {
		if i == 1 {
			answers.Underlay, c.Underlay = c.Underlay, &answers
		}
	}, func(t *testing.T, a, b *testNode) {
		byUDP, byRelay := transport.Endpoint{Addr: a.udp}, transport.Endpoint{Region: 1, Key: a.key}
		a.d.SetPath(b.key, &Path{Best: transport.Endpoint{Addr: b.udp}, Also: transport.Endpoint{Region: 2, Key: b.key}})
		b.d.SetPath(a.key, &Path{Best: byUDP, Also: byRelay})
		answers.lose.Store(true)
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		if got, want := answers.take(), []transport.Endpoint{byUDP}; !slices.Equal(got, want) {
			t.Errorf("both copies of an initiation are answered at %+v, want %+v", got, want)
		}
		b.wantReceived(t, "without an answer")
		answers.lose.Store(false)
		time.Sleep(6 * time.Second) // fake time: the retry, WG-41
		if got, want := answers.take(), []transport.Endpoint{byUDP, byRelay}; !slices.Equal(got, want) {
			t.Errorf("the retry is answered at %+v, want %+v", got, want)
		}
		b.wantReceived(t, "after the retry", pkt)
	})
}
