package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/disco"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/state"
)

// Routers of the scenarios; 5 ms to the outside.
var (
	wide      = simnet.Conditions{Delay: 5 * time.Millisecond}
	easy      = simnet.RouterConfig{NAT: simnet.Easy, Link: wide}
	symmetric = simnet.RouterConfig{NAT: simnet.Symmetric, Link: wide}
	blocked   = simnet.RouterConfig{NAT: simnet.Easy, Link: wide, Firewall: simnet.Firewall{NoUDP: true}}
	mapping   = simnet.RouterConfig{NAT: simnet.Symmetric, Link: wide, PortMapping: simnet.PortMapping{PMP: true}}
)

// settled lets the nodes find out about one another and go quiet.
const settled = 3 * time.Second

// behind joins a node behind a router of its own.
func (g *ground) behind(c simnet.RouterConfig, edit ...func(*Node)) (*member, *simnet.Router) {
	g.t.Helper()
	r := g.net.AddRouter("router", c)
	return g.join(r.AddHost("host", simnet.HostConfig{}), edit...), r
}

// report logs what became of a flow.
func (f *testFlow) report(t *testing.T, what string) {
	t.Helper()
	t.Logf("%s: sent %d, lost %d, twice %d, quiet %v", what, f.sent, f.lost(), f.duplicates, f.quiet())
}

// end stops the flow, waits for what is under way, and closes the log.
func (f *testFlow) end() {
	f.stop()
	time.Sleep(2 * time.Second)
	f.at.mu.Lock()
	defer f.at.mu.Unlock()
	delete(f.at.flows, f.port)
}

// The tests below are the acceptance scenarios of doc/protocol/paths.md section
// 15, by their numbers. The nodes are whole but for the netstack.

func TestScenario1OneLAN(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		home := g.net.AddRouter("home", easy)
		a, b := g.join(home.AddHost("a", simnet.HostConfig{})), g.join(home.AddHost("b", simnet.HostConfig{}))
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond)
		took := until(t, 5*time.Second, func() bool { return a.direct(b) })
		time.Sleep(time.Second)
		flow.end()
		best, _ := a.path(b)
		flow.report(t, "flow")
		t.Logf("direct after %v by %v", took, best.Addr)
		if took > time.Second || !best.Addr.Addr().IsPrivate() || flow.lost() > 0 {
			t.Error("want a direct path within 1 s, by the private address, and no loss")
		}
	})
}

func TestScenario2TwoEasyNATs(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, _ := g.behind(easy)
		b, br := g.behind(easy)
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond)
		if a.direct(b) {
			t.Error("direct before any data")
		}
		took := until(t, 5*time.Second, func() bool { return a.direct(b) })
		time.Sleep(time.Second)
		flow.end()
		best, _ := a.path(b)
		flow.report(t, "flow")
		t.Logf("direct after %v by %v", took, best.Addr)
		if took > time.Second || best.Addr.Addr() != br.Outer() || flow.lost() > 0 {
			t.Error("want a direct path within 1 s, by the router's address, and no loss")
		}
	})
}

func TestScenario3SymmetricAndEasyNAT(t *testing.T) {
	for name, routers := range map[string][2]simnet.RouterConfig{
		"symmetric sends": {symmetric, simnet.RouterConfig{NAT: simnet.FullCone, Link: wide}},
		"symmetric hears": {simnet.RouterConfig{NAT: simnet.FullCone, Link: wide}, symmetric},
	} {
		t.Run(name, func(t *testing.T) {
			onGround(t, func(t *testing.T, g *ground) {
				a, _ := g.behind(routers[0])
				b, _ := g.behind(routers[1])
				time.Sleep(settled)
				flow := a.send(b, 7, 10*time.Millisecond)
				took := until(t, 6*time.Second, func() bool { return a.direct(b) })
				flow.end()
				flow.report(t, "flow")
				if flow.lost() > 0 {
					t.Error("packets were lost")
				}
				t.Logf("direct after %v", took)
			})
		})
	}
}

func TestScenario4TwoSymmetricNATs(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, _ := g.behind(symmetric)
		b, _ := g.behind(symmetric)
		time.Sleep(settled)
		calls := func() uint64 { return a.run.plane.Load().paths.prober.Stats()[disco.CallsSent] }
		before := calls()
		flow := a.send(b, 7, 10*time.Millisecond)
		time.Sleep(30 * time.Second)
		flow.end()
		sending := calls() - before
		flow.report(t, "flow")
		best, _ := a.path(b)
		time.Sleep(2 * time.Minute)
		idle := calls()
		time.Sleep(10 * time.Minute)
		t.Logf("%d calls in 30 s of data, %d in ten quiet minutes", sending, calls()-idle)
		if !best.IsDERP() || flow.lost() > 0 {
			t.Errorf("path %+v, want the relay without loss", best)
		}
		if sending > 8 || calls() != idle {
			t.Error("want at most one call per 5 s, and none without data (PATH-37, PATH-40)")
		}
	})
}

func TestScenario5UDPBlocked(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, ar := g.behind(easy)
		b, _ := g.behind(easy)
		time.Sleep(settled)
		warm := a.send(b, 7, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		warm.end()

		flow := a.send(b, 8, 10*time.Millisecond)
		back := b.send(a, 9, 10*time.Millisecond) // such as acknowledgements
		time.Sleep(5 * time.Second)
		ar.SetLink(simnet.Conditions{Delay: 5 * time.Millisecond, NoUDP: true})
		time.Sleep(20 * time.Second)
		if a.direct(b) || b.direct(a) {
			t.Error("direct while UDP is blocked")
		}
		ar.SetLink(wide)
		took := until(t, 15*time.Second, func() bool { return a.direct(b) && b.direct(a) })
		flow.end()
		back.end()
		flow.report(t, "there")
		back.report(t, "back")
		t.Logf("direct again after %v", took)
		if flow.quiet() > 3500*time.Millisecond || back.quiet() > 3500*time.Millisecond || took > 7*time.Second {
			t.Error("want the relay within 3.5 s, and direct again within 7 s")
		}
	})
}

// A flow with nothing on the way back is as fast to leave a dead path.
func TestScenario5OneWay(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, _ := g.behind(easy)
		b, br := g.behind(easy)
		time.Sleep(settled)
		flow := a.send(b, 8, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		time.Sleep(5 * time.Second)
		br.SetLink(simnet.Conditions{Delay: 5 * time.Millisecond, NoUDP: true})
		time.Sleep(20 * time.Second)
		flow.end()
		flow.report(t, "flow")
		if flow.quiet() > 3500*time.Millisecond {
			t.Error("want the relay within 3.5 s")
		}
	})
}

func TestScenario6AddressChanges(t *testing.T) {
	other := easy
	other.LAN = netip.MustParsePrefix("10.1.1.0/24")
	for name, cafe := range map[string]simnet.RouterConfig{"another address": other, "same address behind another router": easy} {
		t.Run(name, func(t *testing.T) { scenario6(t, cafe) })
	}
}

func scenario6(t *testing.T, router simnet.RouterConfig) {
	onGround(t, func(t *testing.T, g *ground) {
		a, _ := g.behind(easy)
		b, _ := g.behind(easy)
		cafe := g.net.AddRouter("cafe", router)
		time.Sleep(settled)
		flow, back := a.send(b, 8, 10*time.Millisecond), b.send(a, 9, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) && b.direct(a) })
		time.Sleep(3 * time.Second)
		handshake := a.handshake(b)
		a.host.Move(cafe)
		time.Sleep(10 * time.Second)
		if !a.direct(b) || !b.direct(a) {
			t.Error("not direct 10 s after the move")
		}
		best, _ := b.path(a)
		flow.end()
		back.end()
		flow.report(t, "there")
		back.report(t, "back")
		if best.Addr.Addr() != cafe.Outer() || a.handshake(b) != handshake {
			t.Errorf("path %v, handshake at %v and %v; want the new router's address, and the same session", best.Addr, handshake, a.handshake(b))
		}
		if flow.quiet() > 3500*time.Millisecond || back.quiet() > 3500*time.Millisecond {
			t.Error("the move took longer than 3.5 s")
		}
	})
}

// handshake is when m's session with another member began.
func (m *member) handshake(to *member) time.Time {
	peer, ok := m.run.peerFor(to.addr)
	if !ok {
		return time.Time{}
	}
	st, _ := m.run.plane.Load().data.Peer(peer.Key)
	return st.LastHandshake
}

func TestScenario7PeerRestarts(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		store := state.NewMemory()
		keep := func(n *Node) { n.Store, n.Hostname = store, "b" }
		a, _ := g.behind(easy)
		b, br := g.behind(easy, keep)
		time.Sleep(settled)
		warm := a.send(b, 7, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		warm.end()
		b.Close()
		time.Sleep(time.Second)
		again := g.join(br.AddHost("again", simnet.HostConfig{}), keep)
		if again.addr != b.addr || again.run.disco.Public() == b.run.disco.Public() {
			t.Fatalf("address %v and %v; want the same node with another disco key", b.addr, again.addr)
		}
		flow := a.send(again, 8, 10*time.Millisecond)
		took := until(t, 10*time.Second, func() bool { return flow.received() > 0 })
		direct := until(t, 20*time.Second, func() bool { return a.direct(again) })
		flow.end()
		flow.report(t, "flow")
		t.Logf("first packet after %v, direct after %v more", took, direct)
		if took > 6*time.Second {
			t.Error("want traffic after one handshake")
		}
	})
}

func TestScenario8ManyPeers(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, _ := g.behind(easy)
		b, _ := g.behind(easy)
		time.Sleep(settled)
		goroutines := goruntime.NumGoroutine()
		if err := g.tailnet.SetSyntheticPeers(20000); err != nil {
			t.Fatal(err)
		}
		until(t, time.Minute, func() bool { return len(a.netmap().Peers) > 20000 && len(b.netmap().Peers) > 20000 })
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond) // to b, a is one cold peer of many
		took := until(t, 5*time.Second, func() bool { return a.direct(b) && flow.received() > 0 })
		flow.end()
		flow.report(t, "flow")
		t.Logf("direct after %v; goroutines %d, then %d", took, goroutines, goruntime.NumGoroutine())
		if flow.lost() > 0 || took > time.Second || goruntime.NumGoroutine() > goroutines+10 {
			t.Error("want a direct path as fast as ever, and no goroutine for peers that nobody talks to")
		}
	})
}

func TestScenario9Forgeries(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a := g.join(g.net.AddHost("a", simnet.HostConfig{Link: wide}))
		b := g.join(g.net.AddHost("b", simnet.HostConfig{Link: wide}))
		mallory := g.net.AddHost("mallory", simnet.HostConfig{})
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) && b.direct(a) })
		flow.end()
		socket, err := mallory.ListenUDP(t.Context(), "udp4", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		bound, _ := b.run.plane.Load().socket.Bound()
		send := func(frame []byte) {
			if err := socket.WriteBursts(addrPort(b.host.Addr4(), bound.V4.Port()), []packet.Burst{{Buf: frame, Size: len(frame), Count: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		stranger, ab := key.NewDisco(), a.run.disco.Shared(b.run.disco.Public())
		toA := stranger.Shared(a.run.disco.Public())
		sb := stranger.Shared(b.run.disco.Public())
		own, nodeKey := a.run.disco.Public(), a.run.control.NodeKey.Get().Public()
		there := addrPort(mallory.Addr4(), 9)
		ping := &disco.Ping{TxID: disco.NewTxID(), NodeKey: nodeKey}
		state := func() string {
			best, also := b.path(a)
			st, _ := b.run.plane.Load().paths.prober.Status(nodeKey)
			return fmt.Sprint(best, also, st.Best, st.Candidates)
		}
		before, count := state(), b.run.plane.Load().paths.prober.Stats()
		for range 10 {
			send(disco.Seal(own, &ab, &disco.CallMeMaybe{Endpoints: []netip.AddrPort{there}}))  // not over DERP
			send(disco.Seal(own, &ab, &disco.Pong{TxID: disco.NewTxID(), Src: there}))          // answers nothing
			send(disco.Seal(stranger.Public(), &sb, ping))                                      // of no peer
			send(disco.Seal(own, &toA, ping))                                                   // sealed to another key
			send(disco.Seal(own, &ab, ping)[:70])                                               // cut off
			send(disco.Seal(own, &ab, &disco.CallMeMaybeVia{RelayEndpoint: disco.RelayEndpoint{ // of peer relays
				ServerDisco: own, Clients: [2]key.DiscoPublic{own, own}, VNI: 1, Addrs: []netip.AddrPort{there},
			}}))
			time.Sleep(time.Second)
		}
		now := b.run.plane.Load().paths.prober.Stats()
		dropped := uint64(0)
		for c := disco.DroppedFull; int(c) < len(now); c++ {
			dropped += now[c] - count[c]
		}
		if after := state(); after != before || dropped != 60 || mallory.Counters()[simnet.Delivered] != 0 {
			t.Errorf("state %s, then %s; %d frames dropped, want 60; %d answers", before, after, dropped, mallory.Counters()[simnet.Delivered])
		}
	})
}

func TestScenario10HomeChanges(t *testing.T) {
	synctestGround(t, devnet.Config{Relays: 2}, func(t *testing.T, g *ground) {
		a, _ := g.behind(easy)
		b, _ := g.behind(easy)
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		time.Sleep(time.Second) // what the relay still carries arrives: it would die with the relay
		best, _ := a.path(b)
		home := b.run.home.Get()
		if err := g.tailnet.StopRelay(home); err != nil {
			t.Fatal(err)
		}
		until(t, time.Minute, func() bool { return b.run.home.Get() != home && a.home(b) != home })
		if now, _ := a.path(b); now != best {
			t.Errorf("path %+v, want %+v: a new home resets nothing", now, best)
		}
		flow.end()
		flow.report(t, "direct flow")
		for _, m := range g.members {
			m.host.SetLink(simnet.Conditions{NoUDP: true})
		}
		relayed := a.send(b, 8, 10*time.Millisecond)
		time.Sleep(30 * time.Second)
		relayed.end()
		relayed.report(t, "relayed flow")
		if best, _ := a.path(b); int(best.Region) != b.run.home.Get() || relayed.lost() > 400 {
			t.Errorf("path %+v, want region %d", best, b.run.home.Get())
		}
		if flow.lost() > 0 {
			t.Error("packets were lost over the direct path")
		}
	})
}

// home is the home region of another member as m knows it.
func (m *member) home(of *member) int {
	peer, ok := m.run.peerFor(of.addr)
	if !ok {
		return 0
	}
	return peer.HomeDERP
}

func TestScenario11CloseUnderLoad(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a, _ := g.behind(easy)
		b, _ := g.behind(easy)
		time.Sleep(settled)
		there, back := a.send(b, 7, time.Millisecond), b.send(a, 8, time.Millisecond)
		time.Sleep(3 * time.Second)
		began := time.Now()
		a.Close()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("Close took %v", took)
		}
		there.end()
		back.end()
	})
}

func TestScenario12Flood(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		a := g.join(g.net.AddHost("a", simnet.HostConfig{Link: wide}))
		b := g.join(g.net.AddHost("b", simnet.HostConfig{Link: wide}))
		mallory := g.net.AddHost("mallory", simnet.HostConfig{})
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		time.Sleep(time.Second)
		handshake := a.handshake(b)
		bound, _ := b.run.plane.Load().socket.Bound()
		socket, err := mallory.ListenUDP(t.Context(), "udp4", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		flood(t, socket, b, bound.V4.Port())
		flow.end()
		flow.report(t, "flow")
		if flow.lost() > 0 || !a.direct(b) || a.handshake(b) != handshake {
			t.Errorf("lost %d, direct %v, handshake at %v and %v", flow.lost(), a.direct(b), handshake, a.handshake(b))
		}
	})
}

// flood sends a member random handshakes, disco frames and STUN messages, 100
// every 10 ms for 5 s.
func flood(t *testing.T, socket host.UDPConn, to *member, port uint16) {
	random := rand.NewChaCha8([32]byte{})
	at := addrPort(to.host.Addr4(), port)
	for i := range 50000 {
		b := make([]byte, 148)
		random.Read(b)
		switch i % 3 {
		case 0:
			copy(b, []byte{1, 0, 0, 0})
		case 1:
			copy(b, "TS\xf0\x9f\x92\xac")
		case 2:
			copy(b, []byte{1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42})
		}
		if err := socket.WriteBursts(at, []packet.Burst{{Buf: b, Size: len(b), Count: 1}}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}
