package wireguard

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// A disaster makes the actor panic.
type disaster struct{}

func (disaster) apply(*loop) { panic("as ordered") }

// wantNoncesOnce expects that no counter was used twice under a key: a receiver
// index stands for the key, as long as no index comes twice.
func (w *engineWorld) wantNoncesOnce(route string) {
	w.t.Helper()
	seen := map[[12]byte]bool{}
	for _, d := range slices.Concat(w.datagrams(route+" data"), w.datagrams(route+" keepalive")) {
		id := [12]byte(d[4:16])
		if seen[id] {
			w.t.Errorf("%s: index %x used counter %d twice", route, d[4:8], binary.LittleEndian.Uint64(d[8:]))
		}
		seen[id] = true
	}
}

// TestActorRestarts: WG-95. A stream does not notice that the actor starts anew,
// over several rekeys; keepalives, rekeys and erasing go on.
func TestActorRestarts(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		a := w.node("a").(*ourNode)
		var want []string
		for i := range 400 {
			if i%7 == 3 {
				a.e.inbox <- disaster{}
			}
			want = append(want, w.stream("a", 1, time.Second)...)
		}
		w.wantArrived("b", append([]string{"open"}, want...)...)
		if got := w.seen("a restarts"); got != 57 {
			w.t.Errorf("%d restarts, want 57", got)
		}
		w.wantTimes("a>b initiation", 2100*time.Millisecond, 0, 122500*time.Millisecond, 245*time.Second, 367500*time.Millisecond)
		w.wantNoncesOnce("a>b")
		w.until(time.Hour)
		if kps, pendings := a.keypairs(); kps+pendings != 0 || a.session() != nil {
			w.t.Errorf("%d keypairs, %d initiations are left", kps, pendings)
		}
	})
}

// TestRestartInHandshake: the actor fails while it sends one message of a
// handshake after the other; the tunnel opens all the same, and a retransmitted
// initiation is a new one.
func TestRestartInHandshake(t *testing.T) {
	for failures := range 4 {
		for _, from := range []string{"a", "b"} {
			everyPair(t, func(w *engineWorld) {
				a := w.node("a").(*ourNode)
				for range failures {
					a.panics <- struct{}{}
				}
				w.node(from).send(enginePacket(from, "hello"))
				w.sleep(25 * time.Second)
				w.wantArrived(other(from), "hello")
				if got := w.seen("a restarts"); got != failures {
					w.t.Errorf("%d restarts, want %d", got, failures)
				}
				if _, pendings := a.keypairs(); pendings != 0 {
					w.t.Errorf("%d initiations are pending", pendings)
				}
			})
		}
	}
}

// TestRestartWhenUp: the actor fails when a keypair has just become current;
// packets that waited for it leave.
func TestRestartWhenUp(t *testing.T) {
	for _, from := range []string{"a", "b"} {
		everyPair(t, func(w *engineWorld) {
			a := w.node("a").(*ourNode)
			a.failUp.Store(true)
			a.send(enginePacket("a", "one"), enginePacket("a", "two"))
			if from == "b" {
				w.lose(func(route, kind string) bool { return route == "a>b" && kind == "initiation" })
				w.node("b").send(enginePacket("b", "hello"))
			}
			w.sleep(20 * time.Second)
			w.wantArrived("b", "one", "two")
			if w.seen("a restarts") != 1 {
				w.t.Errorf("the actor did not restart\n%s", w.story())
			}
		})
	}
}

// TestRestartKeepsStamps: an initiation of before the restart is refused after it,
// and our own stamps go on.
func TestRestartKeepsStamps(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		msg := newPaper(w, 3).initiate(w, 7, w.stamp(0))
		a.give(msg)
		last := a.e.stamps.last
		a.e.inbox <- disaster{}
		w.sleep(time.Second)
		a.give(msg)
		if got := w.seen("a>b response"); got != 1 || dropped(a.e, dropOldStamp) != 1 {
			t.Errorf("%d responses, %d old stamps", got, dropped(a.e, dropOldStamp))
		}
		if a.e.stamps.last != last {
			t.Error("the stamp clock was set")
		}
	})
}

// TestSweep: what a failed actor left half done is cleared by the next.
func TestSweep(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		w.openPaper(a, b)
		stray := &keypair{session: a.session(), local: a.e.indices.choose()}
		a.e.indices.addKeypair(stray)
		a.e.indices.addPending(&pending{index: a.e.indices.choose(), session: a.session()})
		a.e.inbox <- disaster{}
		w.sleep(time.Second)
		if kps, pendings := a.keypairs(); kps != 1 || pendings != 0 || a.e.indices.used != 1 {
			t.Errorf("%d keypairs, %d initiations, %d slots in use", kps, pendings, a.e.indices.used)
		}
	})
}

// TestRandomSchedules: doc/protocol/wireguard.md section 10.1 row 20. Whatever the
// order of sends, losses, restarts and expiries, every packet leaves or is
// counted, and once the wire is whole the tunnel works again.
func TestRandomSchedules(t *testing.T) {
	for seed := range uint64(20) {
		engineTest(t, engineOurs, engineOurs, func(w *engineWorld) {
			random := rand.New(rand.NewPCG(seed, 1))
			nodes := [2]*ourNode{w.node("a").(*ourNode), w.node("b").(*ourNode)}
			var sent [2]int
			for range 150 {
				i := random.IntN(2)
				n := nodes[i]
				switch random.IntN(12) {
				case 0:
					n.e.Expire(n.peer())
				case 1:
					n.e.ExpireAll()
				case 2:
					n.e.inbox <- disaster{}
				case 3:
					n.panics <- struct{}{}
				case 4:
					w.lose(func(route, _ string) bool { return route[0] == n.name[0] })
				case 5:
					w.setRule(nil)
				case 6:
					time.Sleep(time.Duration(random.Int64N(int64(200 * time.Second))))
				case 7:
					time.Sleep(time.Duration(random.Int64N(int64(10 * time.Second))))
				default:
					n.send(enginePacket(n.name, fmt.Sprint(sent[i])))
					sent[i]++
					time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
				}
			}
			w.setRule(nil)
			for _, n := range nodes { // orders that no handshake has carried out
				for len(n.panics) > 0 {
					<-n.panics
				}
			}
			w.sleep(120 * time.Second)
			for i, n := range nodes {
				s := n.e.Stats()
				lost := s.Dropped[dropParkFull] + s.Dropped[dropParked]
				if left := w.seen(n.route()+" data") + w.seen(n.route()+" data lost"); left+int(lost) != sent[i] || s.ParkedBytes != 0 {
					t.Errorf("seed %d: %s was given %d packets, %d left, %d dropped, %d bytes wait\n%s", seed, n.name, sent[i], left, lost, s.ParkedBytes, w.story())
				}
			}
			for _, n := range nodes {
				n.send(enginePacket(n.name, "probe"))
				w.sleep(time.Second)
				n.send(enginePacket(n.name, "end"))
				w.sleep(20 * time.Second)
				n.send(enginePacket(n.name, "end"))
				w.sleep(time.Second)
				if got := w.arrived(other(n.name)); len(got) == 0 || got[len(got)-1] != "end" {
					t.Errorf("seed %d: nothing arrives from %s\n%s", seed, n.name, w.story())
				}
				w.wantNoncesOnce(n.route())
			}
		})
	}
}

func (n *ourNode) route() string { return n.name + ">" + other(n.name) }

// A rope joins two engines without a wire, in real time.
type rope struct {
	far    *Engine
	src    *Source
	mu     sync.Mutex // one user of the opener
	opener *Opener
	nonces sync.Map // receiver index and counter of each datagram
	twice  atomic.Int64
}

func (r *rope) carry(bursts ...packet.Burst) {
	for _, b := range bursts {
		for i := range b.Count {
			d := b.Datagram(i)
			if d[0] != 4 {
				r.far.Handshake(r.src, d)
				continue
			}
			if _, twice := r.nonces.LoadOrStore([12]byte(d[4:16]), true); twice {
				r.twice.Add(1)
			}
			r.mu.Lock()
			r.opener.Open(r.src, d, 0, 0, r.far.Now())
			r.opener.Flush()
			r.mu.Unlock()
		}
	}
}

// A nowhere is a Sink that drops all.
type nowhere struct{}

func (*nowhere) Owner(netip.Addr) *Peer                        { return nil }
func (*nowhere) Verdict(*Peer, *packet.Header, []byte) Verdict { return Drop }
func (*nowhere) Reserve(n int) []byte                          { return make([]byte, n) }
func (*nowhere) Commit(*Peer, packet.Merged)                   {}
func (*nowhere) Flush()                                        {}

// quiet is Events that nobody wants to know.
type quiet struct{}

func (quiet) Up(*Peer, bool)                {}
func (quiet) GaveUp(*Peer)                  {}
func (quiet) Erased(*Peer)                  {}
func (quiet) FirstPacket(*Peer, []byte) int { return 0 }
func (quiet) Heard(*Peer, *Source)          {}

// TestEraseUnderLoad: doc/protocol/wireguard.md section 10.1 rows 2 and 19.
// Several goroutines seal and open while sessions expire and are erased, and the
// actor restarts; no counter is used twice and no race is found.
func TestEraseUnderLoad(t *testing.T) {
	w := newEngineWorld(t)
	ropes := [2]*rope{{src: engineUDP("192.0.2.1:1")}, {src: engineUDP("192.0.2.2:1")}}
	var engines [2]*Engine
	for i, name := range []string{"a", "b"} {
		e, err := New(Config{
			Private: w.keys[name], MTU: 1280, Events: quiet{},
			Send:  func(_ *Peer, _ *Source, b packet.Burst) { ropes[i].carry(b) },
			Reply: func(_ *Source, msg []byte) { ropes[i].far.Handshake(ropes[i].src, msg) },
		})
		if err != nil {
			t.Fatal(err)
		}
		engines[i] = e
	}
	stop := make(chan struct{})
	var wg, serving sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i, e := range engines {
		far := engines[1-i]
		ropes[i].far, ropes[i].opener = far, far.NewOpener(new(nowhere))
		e.Update(PeerDiff{Add: []NewPeer{{Key: w.keys[[]string{"b", "a"}[i]].Public()}}})
		serving.Go(func() {
			for ctx.Err() == nil {
				_ = actor.Guard(ctx, e.Serve) // a panic is what the test orders
			}
		})
	}
	for i, e := range engines {
		k := w.keys[[]string{"b", "a"}[i]].Public()
		for range 3 {
			sealer := e.NewSealer(func(_ *Peer, b []packet.Burst) { ropes[i].carry(b...) })
			pkts := []packet.Outbound{{Head: enginePacket([]string{"a", "b"}[i], "load")}}
			wg.Go(func() {
				for range 30000 {
					if p := e.Peer(k); p != nil {
						sealer.Seal(p, pkts, 0, e.Now())
					}
					runtime.Gosched()
				}
			})
		}
	}
	go func() { wg.Wait(); close(stop) }()
	random := rand.New(rand.NewPCG(1, 1))
	for i := 0; ; i++ {
		select {
		case <-stop:
		default:
			engineTrouble(engines[i%2], w.keys[[]string{"b", "a"}[i%2]].Public(), random)
			continue
		}
		break
	}
	cancel()
	serving.Wait()
	if n := ropes[0].twice.Load() + ropes[1].twice.Load(); n != 0 {
		t.Errorf("%d counters were used twice", n)
	}
	if s := engines[0].Stats(); s.Handshakes == 0 {
		t.Errorf("nothing happened: %+v", s)
	}
}

// engineTrouble does one of the things that take keypairs away.
func engineTrouble(e *Engine, k key.NodePublic, random *rand.Rand) {
	p := e.Peer(k)
	switch n := random.IntN(40); {
	case n == 0:
		runtime.GC()
	case n == 1:
		e.inbox <- disaster{}
	case n == 2:
		e.ExpireAll()
	case n == 3 && p != nil:
		e.Expire(p)
	case n == 4:
		e.Update(PeerDiff{Remove: []*Peer{p}})
		e.Update(PeerDiff{Add: []NewPeer{{Key: k}}})
	default:
		runtime.Gosched()
	}
}
