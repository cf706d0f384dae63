package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tailscale.com/derp/derphttp"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// discoLike is the shortest packet that a relay takes for a disco message
// (DERP-53).
var discoLike = append([]byte("TS\U0001f4ac"), make([]byte, 32+24)...)

// eachPair runs a test for clients and relays of both kinds. The pair of the
// reference shows that the test asks for what the reference does.
func eachPair(t *testing.T, test func(t *testing.T, client peer.Kind, rl *testRelay)) {
	t.Helper()
	for _, client := range relayKinds {
		for _, kind := range relayKinds {
			t.Run(fmt.Sprintf("%s client, %s relay", client, kind), func(t *testing.T) {
				t.Parallel()
				test(t, client, startRelay(t, kind, fastStart))
			})
		}
	}
}

// sync waits until the relay has handled all that the client has sent: it
// answers pings in order.
func (l *messageLog) sync(t *testing.T, c relayClient) {
	t.Helper()
	mark := [derp.PingSize]byte{'s', 'y', 'n', 'c'}
	if err := c.SendPing(mark); err != nil {
		t.Fatal(err)
	}
	await(t, l, func(m derp.Pong) bool { return m == derp.Pong(mark) })
}

// A ping that Recv sees answered, one that Ping waits for, the relay's key, and
// the counters of both (DERP-59, DERP-117, DERP-119).
func TestDERPPing(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		c, log := reach(t, client, rl, clientOptions{})
		if got := c.ServerPublicKey(); got != rl.key {
			t.Errorf("relay has the key %v, want %v", got, rl.key)
		}
		log.sync(t, c)
		if err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if got := rl.count(t, "got_ping"); got != 2 {
			t.Errorf("relay counts %v pings, want 2", got)
		}
		for deadline := time.Now().Add(messageWait); rl.count(t, "sent_pong") != 2; {
			if time.Now().After(deadline) { // it counts a pong once it is written, which may be after we have read it
				t.Fatalf("relay counts %v pongs, want 2", rl.count(t, "sent_pong"))
			}
		}
	})
}

// The relay counts who calls it home, and is told again after a reconnect
// (DERP-81, DERP-118).
func TestDERPNotePreferred(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		c := newRelayClient(t, client, rl, clientOptions{})
		log := listen(t, c)
		check := func(what string, want float64) {
			t.Helper()
			log.sync(t, c)
			for deadline := time.Now().Add(messageWait); rl.count(t, "gauge_current_home_connections") != want; log.sync(t, c) {
				if time.Now().After(deadline) { // the connection before may take a moment to go
					t.Fatalf("%s: %v clients at home, want %v", what, rl.count(t, "gauge_current_home_connections"), want)
				}
			}
		}
		check("at first", 0)
		c.NotePreferred(true)
		check("home", 1)
		closer, _ := reach(t, client, rl, clientOptions{mesh: true})
		if err := closer.ClosePeer(c.SelfPublicKey()); err != nil {
			t.Fatal(err)
		}
		log.awaitError(t)
		log = listen(t, c) // connects again
		check("home again", 1)
		c.NotePreferred(false)
		check("not home", 0)
	})
}

// A watcher is told of all who are there, itself too, with their flags and
// addresses, then of those who come and go; a second connection of a key is told,
// its end is not (DERP-14, DERP-15, DERP-46, DERP-87).
func TestDERPWatch(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		regular, _ := reach(t, client, rl, clientOptions{})
		watcher, log := reach(t, client, rl, clientOptions{mesh: true, watch: true})
		present := func(c relayClient, want derp.PresentFlags) {
			t.Helper()
			m := await(t, log, func(m derp.PeerPresent) bool { return m.Peer == c.SelfPublicKey() })
			if m.Flags != want || m.Addr != localAddr(t, c) {
				t.Errorf("flags %#x at %v, want %#x at %v", m.Flags, m.Addr, want, localAddr(t, c))
			}
		}
		flood := []derp.PeerPresent{
			await(t, log, func(derp.PeerPresent) bool { return true }),
			await(t, log, func(derp.PeerPresent) bool { return true }),
		}
		for c, flags := range map[relayClient]derp.PresentFlags{regular: derp.PresentRegular, watcher: derp.PresentMeshPeer} {
			want := derp.PeerPresent{Peer: c.SelfPublicKey(), Addr: localAddr(t, c), Flags: flags}
			if !slices.Contains(flood, want) {
				t.Errorf("at first %+v, want %+v among them", flood, want)
			}
		}
		prober, _ := reach(t, client, rl, clientOptions{prober: true})
		present(prober, derp.PresentProber)
		stray, _ := reach(t, client, rl, clientOptions{notBest: true})
		present(stray, derp.PresentNotIdeal)
		private := key.NewNode()
		first, _ := reach(t, client, rl, clientOptions{private: private})
		present(first, derp.PresentRegular)
		second, _ := reach(t, client, rl, clientOptions{private: private})
		present(second, derp.PresentRegular)
		first.Close()
		prober.Close()
		if m := await(t, log, func(derp.PeerGone) bool { return true }); m.Peer != prober.SelfPublicKey() || m.Reason != derp.GoneDisconnected {
			t.Errorf("gone is %+v, want the prober", m)
		}
		second.Close()
		log.awaitGone(t, private.Public(), derp.GoneDisconnected)
	})
}

// localAddr is where a client has connected from.
func localAddr(t *testing.T, c relayClient) netip.AddrPort {
	t.Helper()
	if theirs, ok := c.(referenceClient); ok {
		a, err := theirs.LocalAddr()
		if err != nil {
			t.Fatal(err)
		}
		return unmapped(a)
	}
	a, err := c.(*derp.Client).LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	return unmapped(netip.MustParseAddrPort(a.String()))
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// With the mesh key a client passes on packets of others, and hears of those
// that it cannot; without it the relay hangs up on each of the three requests
// (DERP-32, DERP-50, DERP-86).
func TestDERPMeshRights(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		mesh, meshLog := reach(t, client, rl, clientOptions{mesh: true})
		c, log := reach(t, client, rl, clientOptions{})
		source, absent := key.NewNode().Public(), key.NewNode().Public()
		if err := mesh.ForwardPacket(source, c.SelfPublicKey(), []byte("forwarded")); err != nil {
			t.Fatal(err)
		}
		log.awaitPacket(t, source, []byte("forwarded"))
		if err := mesh.ForwardPacket(source, absent, discoLike); err != nil {
			t.Fatal(err)
		}
		meshLog.awaitGone(t, absent, derp.GoneNotHere)
		if got := rl.count(t, "packets_forwarded_in"); got != 2 {
			t.Errorf("relay counts %v packets forwarded to it, want 2", got)
		}

		for _, request := range []struct {
			name string
			send func(relayClient) error
			o    clientOptions
		}{
			{"ForwardPacket", func(c relayClient) error { return c.ForwardPacket(source, absent, nil) }, clientOptions{}},
			{"ClosePeer", func(c relayClient) error { return c.ClosePeer(mesh.SelfPublicKey()) }, clientOptions{}},
			{"WatchConns", relayClient.WatchConnections, clientOptions{watch: true}},
		} {
			intruder := newRelayClient(t, client, rl, request.o)
			if err := intruder.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := request.send(intruder); err != nil {
				t.Fatalf("%s: %v", request.name, err)
			}
			receive(intruder).awaitError(t)
		}
		meshLog.sync(t, mesh)
	})
}

// Who sends disco packets to a client that is not there is told so; who has
// received from a client is told when it leaves; other packets vanish silently
// (DERP-69, DERP-71).
func TestDERPPeerGone(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		c, log := reach(t, client, rl, clientOptions{})
		silent, absent := key.NewNode().Public(), key.NewNode().Public()
		for _, p := range []struct {
			to   key.NodePublic
			data []byte
		}{{silent, []byte("not disco")}, {absent, discoLike}} {
			if err := c.Send(p.to, p.data); err != nil {
				t.Fatal(err)
			}
		}
		if m := await(t, log, func(derp.PeerGone) bool { return true }); m != (derp.PeerGone{Peer: absent, Reason: derp.GoneNotHere}) {
			t.Errorf("gone is %+v, want NotHere of the destination of the disco packet", m)
		}
		visitor, _ := reach(t, client, rl, clientOptions{})
		if err := visitor.Send(c.SelfPublicKey(), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		log.awaitPacket(t, visitor.SelfPublicKey(), []byte("hello"))
		visitor.Close()
		log.awaitGone(t, visitor.SelfPublicKey(), derp.GoneDisconnected)
	})
}

// A client whose connection is closed by a mesh client says so once, and the
// next call makes connection number 2; after Close every call fails for good
// (DERP-89, DERP-112, DERP-114, DERP-116).
func TestDERPGenerations(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		c := newRelayClient(t, client, rl, clientOptions{})
		want := func(generation int) {
			t.Helper()
			m, got, err := c.RecvDetail()
			if err != nil || got != generation || !isServerInfo(m) {
				t.Fatalf("%T of connection %d, %v; want ServerInfo of connection %d", m, got, err, generation)
			}
		}
		want(1)
		closer, _ := reach(t, client, rl, clientOptions{mesh: true})
		if err := closer.ClosePeer(c.SelfPublicKey()); err != nil {
			t.Fatal(err)
		}
		if m, _, err := c.RecvDetail(); err == nil {
			t.Fatalf("received %T, want an error", m)
		}
		want(2)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{"Send": c.Send(rl.key, nil), "Connect": c.Connect(t.Context()), "Ping": c.Ping(t.Context())} {
			if !errors.Is(err, derp.ErrClientClosed) && !errors.Is(err, derphttp.ErrClientClosed) {
				t.Errorf("%s after Close: %v", what, err)
			}
		}
	})
}

// Our relay's counters have the reference's names, so that what reads those reads
// ours (DERP-83).
func TestMetricNamesAreTheReferences(t *testing.T) {
	t.Parallel()
	ours, theirs := startRelay(t, peer.Ours, plainHTTP).metrics(t), startRelay(t, peer.Reference, plainHTTP).metrics(t)
	delete(theirs, "version") // of the program: our daemon's to publish
	for name := range theirs {
		if _, ok := ours[name]; !ok {
			t.Errorf("our relay has no metric %s", name)
		}
	}
}

// Who has received a forwarded packet is told when its source leaves, also if the
// relay heard of the source only after the packet (DERP-69).
func TestDERPGoneAfterEarlyForward(t *testing.T) {
	eachPair(t, func(t *testing.T, client peer.Kind, rl *testRelay) {
		mesh, _ := reach(t, client, rl, clientOptions{mesh: true})
		c, log := reach(t, client, rl, clientOptions{})
		private := key.NewNode()
		if err := mesh.ForwardPacket(private.Public(), c.SelfPublicKey(), []byte("early")); err != nil {
			t.Fatal(err)
		}
		log.awaitPacket(t, private.Public(), []byte("early"))
		late, _ := reach(t, client, rl, clientOptions{private: private})
		late.Close()
		log.awaitGone(t, private.Public(), derp.GoneDisconnected)
	})
}
