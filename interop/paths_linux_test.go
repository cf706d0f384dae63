package interop

import (
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/ground"
	"github.com/seed94491740/tsnode/interop/peer"
)

// lastMile delays each packet of a site that is not on the same LAN as the other:
// a round trip between two such sites takes four times as long.
const lastMile = 10 * time.Millisecond

// Scenarios 1 to 3 of paths.md section 15: the first data goes by a relay, a
// direct path comes, and nothing is lost at the switch.
func TestDirectPath(t *testing.T) {
	for _, test := range []struct {
		name     string
		from, to ground.NAT
		lan      bool
		within   time.Duration // between nodes of ours; with another, patience is theirs
	}{
		{name: "LAN", from: ground.Easy, lan: true, within: time.Second},
		{name: "easy NATs", from: ground.Easy, to: ground.Easy, within: time.Second},
		{name: "symmetric NAT and full cone", from: ground.Symmetric, to: ground.FullCone, within: 5 * time.Second},
		{name: "full cone and symmetric NAT", from: ground.FullCone, to: ground.Symmetric, within: 5 * time.Second},
	} {
		for _, p := range pairs() {
			t.Run(test.name+"/"+p.String(), func(t *testing.T) {
				t.Parallel()
				a := newArena(t)
				siteA := a.site(test.from, lastMile)
				siteB := siteA
				if !test.lan {
					siteB = a.site(test.to, lastMile)
				}
				from, to := a.startPair(p, a.host(siteA, "a"), a.host(siteB, "b"))
				c := a.converse(from, to)
				within := test.within
				if !p.ours() {
					within = referencePatience
				}
				path, took := c.awaitDirect(c.began, within)
				if test.lan && !siteA.LAN().Contains(path.Direct.Addr()) {
					c.fail("%v is not on the LAN", path)
				}
				time.Sleep(settleTime)
				f, s := c.endWithoutLoss()
				t.Logf("%v after %v; %d datagrams by UDP, %d kB by TCP", path, took.Round(time.Millisecond), len(f.Sent), s.Bytes>>10)
			})
		}
	}
}

// referencePatience is how long a direct path with a reference node may take:
// its rounds of pings are 5 s apart (PATH-31).
const referencePatience = 8 * time.Second

// Scenario 4: behind two symmetric NATs traffic stays on the relay, and flows.
func TestSymmetricNATsStayOnRelay(t *testing.T) {
	for _, p := range pairs() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			from, to := a.startPair(p, a.host(a.site(ground.Symmetric, lastMile), "a"), a.host(a.site(ground.Symmetric, lastMile), "b"))
			c := a.converse(from, to)
			if path, took, ok := c.direct(from, to, c.began, referencePatience); ok {
				c.fail("%v after %v", path, took)
			}
			info, err := from.Peer(to)
			c.must(err)
			f, s := c.endWithoutLoss()
			t.Logf("%v; %d datagrams by UDP, %d kB by TCP", info.Path, len(f.Sent), s.Bytes>>10)
		})
	}
}

// A direct path over links that lose, delay and reorder packets carries a stream
// unharmed and is not given up.
func TestBadLinks(t *testing.T) {
	bad := ground.Conditions{Delay: lastMile, Jitter: 5 * time.Millisecond, Loss: 0.005, Reorder: 0.02, ReorderBy: 20 * time.Millisecond}
	for _, p := range pairs() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			siteA, siteB := a.site(ground.Easy, 0), a.site(ground.Easy, 0)
			from, to := a.startPair(p, a.host(siteA, "a"), a.host(siteB, "b"))
			c := a.converse(from, to)
			c.awaitDirect(c.began, referencePatience)
			siteA.Link.Set(bad)
			siteB.Link.Set(bad)
			began := time.Now()
			time.Sleep(badTime)
			f, s := c.end()
			there, back := f.Lost()
			t.Logf("%d and %d of %d datagrams lost; %d kB by TCP", there, back, len(f.Sent), s.Bytes>>10)
			if there == 0 || there > len(f.Sent)/10 || back > len(f.Sent)/10 {
				t.Error("that is not what such links lose")
			}
			for _, side := range [][2]*peer.Process{{from, to}, {to, from}} {
				changes, err := side[0].Watch(side[1])
				c.must(err)
				if last := changes[len(changes)-1]; !last.Path.Direct.IsValid() || last.At.After(began) && p.ours() {
					c.fail("%s changed to %v", side[0].Name, last.Path)
				}
			}
		})
	}
}

// badTime is how long a conversation has to bear bad links: longer than a path
// is trusted without proof (PATH-31).
const badTime = 10 * time.Second

// Scenario 5: UDP is blocked in the middle of a transfer, and let through again.
func TestUDPBlockedInTransfer(t *testing.T) {
	for _, p := range pairs() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			site := a.site(ground.Easy, lastMile)
			from, to := a.startPair(p, a.host(site, "a"), a.host(a.site(ground.Easy, lastMile), "b"))
			c := a.converse(from, to)
			c.awaitDirect(c.began, referencePatience)
			time.Sleep(settleTime)

			c.must(site.BlockUDP(true))
			blocked := time.Now()
			time.Sleep(blockTime)
			c.must(site.BlockUDP(false))
			free := time.Now()
			_, again := c.awaitDirect(free, referencePatience)
			time.Sleep(settleTime)
			f, s := c.end()

			there, back := f.Resumed(blocked)
			tcp := s.Resumed(blocked)
			t.Logf("UDP goes on after %v there, %v back; TCP after %v; direct again after %v",
				there.Round(time.Millisecond), back.Round(time.Millisecond), tcp.Round(time.Millisecond), again.Round(time.Millisecond))
			if p.from == peer.Reference && p.to == peer.Reference {
				return
			}
			if p.from == peer.Ours {
				a.atMost("UDP there", there, 3500*time.Millisecond)
			}
			if p.to == peer.Ours { // it sends when something has come
				a.atMost("UDP back", back-max(0, there), 3500*time.Millisecond)
			}
			if p.ours() {
				a.atMost("UDP back", back, 3500*time.Millisecond)
				a.atMost("TCP", tcp, 6500*time.Millisecond)
				a.atMost("direct", again, 7*time.Second)
			}
		})
	}
}

// blockTime is how long UDP is blocked: longer than it takes any node to notice.
const blockTime = 12 * time.Second

// atMost fails the test if something took too long, or did not come at all.
func (a *arena) atMost(what string, took, limit time.Duration) {
	a.Helper()
	if took < 0 || took > limit {
		a.Errorf("%s after %v, want at most %v", what, took, limit)
	}
}

// Scenario 6: the sender gets another address, or moves to another network, in
// the middle of a transfer. The stream survives, in the same WireGuard session.
func TestAddressChangesInTransfer(t *testing.T) {
	for _, test := range []struct {
		name   string
		peer   ground.NAT // of the other side, when it is not on the same LAN
		lan    bool
		change func(*arena, *ground.Host) error
	}{
		{name: "new address on the LAN", lan: true, change: renumber},
		{name: "new address behind NAT", peer: ground.FullCone, change: renumber},
		{name: "new network", peer: ground.Easy, change: func(a *arena, h *ground.Host) error {
			return h.Move(a.site(ground.Easy, lastMile))
		}},
		{name: "new network with the same addresses", peer: ground.Easy, change: func(a *arena, h *ground.Host) error {
			return h.MoveUnseen(a.site(ground.Easy, lastMile))
		}},
	} {
		for _, p := range pairs() {
			t.Run(test.name+"/"+p.String(), func(t *testing.T) {
				t.Parallel()
				a := newArena(t)
				siteA := a.site(ground.Easy, lastMile)
				siteB := siteA
				if !test.lan {
					siteB = a.site(test.peer, lastMile)
				}
				mover := a.host(siteA, "a")
				from, to := a.startPair(p, mover, a.host(siteB, "b"))
				c := a.converse(from, to)
				c.awaitDirect(c.began, referencePatience)
				time.Sleep(settleTime)
				before, err := to.Peer(from)
				c.must(err)

				changed := time.Now()
				c.must(test.change(a, mover))
				path, took, ok := c.direct(to, from, changed, movePatience)
				if !ok {
					c.fail("no direct path to the moved node in %v", movePatience)
				}
				time.Sleep(settleTime)
				after, err := to.Peer(from)
				c.must(err)
				f, s := c.end()
				there, back := f.Resumed(changed)
				t.Logf("back to %v after %v; UDP goes on after %v there, %v back; TCP after %v", path, took.Round(time.Millisecond),
					there.Round(time.Millisecond), back.Round(time.Millisecond), s.Resumed(changed).Round(time.Millisecond))
				if !after.LastHandshake.Equal(before.LastHandshake) {
					t.Errorf("a new WireGuard session at %v, the change was at %v", after.LastHandshake, changed)
				}
			})
		}
	}
}

func renumber(_ *arena, h *ground.Host) error { return h.Renumber() }

// movePatience is how long a direct path to a node that has moved may take. If
// it has not noticed, it sees its new public address with the next periodic
// STUN, 20 to 26 s after the one before (PATH-29).
const movePatience = 35 * time.Second

// Scenario 7: the other side crashes and comes again with the same node key and
// another disco key.
func TestPeerRestarts(t *testing.T) {
	for _, p := range pairs() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			host := a.host(a.site(ground.Easy, lastMile), "b")
			from, to := a.startPair(p, a.host(a.site(ground.Easy, lastMile), "a"), host)
			c := a.converseByUDP(from, to)
			c.awaitDirect(c.began, referencePatience)
			time.Sleep(settleTime)

			to.Kill()
			c.to = a.start(p.to, "b", host)
			restarted := time.Now()
			if c.to.IP != to.IP {
				t.Fatalf("restarted as %v, was %v", c.to.IP, to.IP)
			}
			c.watch()
			path, took := c.awaitDirect(restarted, restartPatience)
			time.Sleep(settleTime)
			f, err := c.from.StopFlow(c.flow, c.to)
			c.must(err)
			there, back := f.Resumed(restarted)
			t.Logf("%v after %v; UDP goes on after %v there, %v back", path, took.Round(time.Millisecond), there.Round(time.Millisecond), back.Round(time.Millisecond))
		})
	}
}

// restartPatience is how long a direct path to a node that has crashed may take.
const restartPatience = 20 * time.Second
