package wireguard

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// empty sends an empty packet under the keypair in use.
func (n *ourNode) empty() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if kp := n.session().current.Load(); kp != nil {
		n.sealer.keepalive(n.peer(), kp, n.e.Now())
	}
}

// open opens the tunnel by a packet from a node and lets a second pass.
func (w *engineWorld) open(from string) {
	w.node(from).send(enginePacket(from, "open"))
	w.until(time.Second)
	w.t.Helper()
	w.wantArrived(other(from), "open")
}

// stream sends a numbered packet from a node at the start of every step.
func (w *engineWorld) stream(from string, n int, step time.Duration) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprintf("%s%d", from, i))
		w.node(from).send(enginePacket(from, texts[i]))
		w.sleep(step)
	}
	return texts
}

// TestRekeyBySending: the initiator of a keypair that is 120 s old starts a new
// handshake when it sends, and no packet is lost (WG-40: ours waits 2.5 s more
// here).
func TestRekeyBySending(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		want := w.stream("a", 300, time.Second)
		w.wantArrived("b", append([]string{"open"}, want...)...)
		w.wantTimes("a>b initiation", 1200*time.Millisecond, 0, 122500*time.Millisecond, 245*time.Second)
		w.wantTimes("b>a initiation", 0)
	})
}

// TestRekeyByUpstream: the same with upstream as initiator, at 120 s sharp.
func TestRekeyByUpstream(t *testing.T) {
	engineTest(t, engineUpstream, engineOurs, func(w *engineWorld) {
		w.open("a")
		want := w.stream("a", 300, time.Second)
		w.wantArrived("b", append([]string{"open"}, want...)...)
		w.wantTimes("a>b initiation", 2100*time.Millisecond, 0, 120*time.Second, 240*time.Second)
		w.wantTimes("b>a initiation", 0)
	})
}

// TestResponderDoesNotRekey: who only answered leaves the rekey to the initiator,
// whatever the age (WG-94).
func TestResponderDoesNotRekey(t *testing.T) {
	engineTest(t, engineUpstream, engineOurs, func(w *engineWorld) {
		w.open("a")
		want := w.stream("b", 175, time.Second)
		w.wantArrived("a", want...)
		w.wantTimes("b>a initiation", 0)
	})
}

// TestRekeyByReceiving: an initiator that only receives starts over at 165 s.
func TestRekeyByReceiving(t *testing.T) {
	engineTest(t, engineOurs, engineOurs, func(w *engineWorld) {
		w.open("a")
		b := w.node("b").(*ourNode)
		for w.now() < 180*time.Second {
			b.empty()
			w.sleep(time.Second)
		}
		w.wantTimes("a>b initiation", 1100*time.Millisecond, 0, 165*time.Second)
	})
}

// TestReject: without a new handshake a keypair is used for 180 s, in both
// directions, and not longer (WG-31).
func TestReject(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		w.lose(func(_, kind string) bool { return kind == "initiation" || kind == "response" })
		w.until(179 * time.Second)
		for _, from := range []string{"a", "b"} {
			w.node(from).send(enginePacket(from, "in time"))
		}
		w.sleep(500 * time.Millisecond)
		w.wantArrived("a", "in time")
		w.wantArrived("b", "open", "in time")
		n := len(w.times("a>b data"))
		w.until(181 * time.Second)
		w.node("a").send(enginePacket("a", "late"))
		w.sleep(time.Second)
		if len(w.times("a>b data")) != n {
			w.t.Errorf("data was sent under a keypair of 181 s\n%s", w.story())
		}
		for _, d := range w.datagrams("b>a data") { // replayed, but refused for its age first
			w.node("a").take(d)
		}
		w.wantArrived("a", "in time")
		if kps, _ := w.node("a").(*ourNode).keypairs(); kps != 0 {
			w.t.Errorf("%d keypairs are left after 180 s", kps)
		}
	})
}

// TestKeepalive: who receives data and has nothing to say sends an empty packet
// after 10 s, once (paper section 6.5).
func TestKeepalive(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		w.node("b").send(enginePacket("b", "for a"))
		w.until(60 * time.Second)
		w.wantTimes("a>b keepalive", wakeSlack, 11*time.Second+engineRTT/2)
		w.wantTimes("b>a keepalive", 0)
	})
	engineTest(t, engineUpstream, engineOurs, func(w *engineWorld) {
		w.open("a") // its data arrives after 1.5 round trips
		w.until(60 * time.Second)
		w.wantTimes("b>a keepalive", wakeSlack, 10*time.Second+engineRTT*3/2)
		w.wantTimes("a>b initiation", 0, 0)
	})
}

// TestNoAnswer: data that nothing comes back for causes a new handshake after 15
// s, with either side as the one that is deaf.
func TestNoAnswer(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		w.until(30 * time.Second)
		w.lose(func(route, _ string) bool { return route == "b>a" })
		w.node("a").send(enginePacket("a", "hello"))
		w.until(46 * time.Second)
		w.wantTimes("a>b initiation", wakeSlack, 0, 45*time.Second+maxJitter/2)
		w.setRule(nil)
		w.until(60 * time.Second)
		w.node("a").send(enginePacket("a", "again"))
		w.sleep(time.Second)
		w.wantArrived("b", "open", "hello", "again")
	})
}

// TestGiveUp: 90 s after the last packet handshakes end; parked packets are
// dropped and counted, and the session is erased in the end (WG-41, WG-44).
func TestGiveUp(t *testing.T) {
	engineTest(t, engineOurs, engineUpstream, func(w *engineWorld) {
		w.lose(func(route, _ string) bool { return route == "a>b" })
		w.node("a").send(enginePacket("a", "hello"))
		w.until(90 * time.Second)
		first := w.seen("a>b initiation lost")
		w.until(300 * time.Second)
		n := w.node("a").(*ourNode)
		if got := w.seen("a>b initiation lost"); got != first || got < 17 || got > 18 {
			t.Errorf("%d initiations, %d in 90 s\n%s", got, first, w.story())
		}
		step := rekeyTimeout + maxJitter/2
		for i, at := range w.times("a>b initiation lost") {
			if want := time.Duration(i) * step; at < want || at > want+time.Duration(i)*wakeSlack {
				t.Errorf("initiation %d at %v, want %v", i, at, want)
			}
		}
		if w.seen("a gave up") != 1 || n.e.Stats().ParkedBytes != 0 || dropped(n.e, dropParked) != 1 {
			t.Errorf("gave up %d times, %+v", w.seen("a gave up"), n.e.Stats())
		}
		if _, pendings := n.keypairs(); pendings != 0 {
			t.Errorf("%d initiations are pending", pendings)
		}
		w.until(700 * time.Second)
		if w.seen("a erased") != 1 || n.session() != nil || n.e.Stats().Sessions != 0 {
			t.Errorf("the session is not erased\n%s", w.story())
		}
		w.setRule(nil)
		w.node("a").send(enginePacket("a", "again"))
		w.sleep(time.Second)
		w.wantArrived("b", "again")
	})
}

// TestNoGiveUpWhileSending: every packet is a new want.
func TestNoGiveUpWhileSending(t *testing.T) {
	engineTest(t, engineOurs, engineUpstream, func(w *engineWorld) {
		w.lose(func(route, _ string) bool { return route == "a>b" })
		w.stream("a", 200, time.Second)
		if got := w.seen("a>b initiation lost"); got < 36 || got > 40 || w.seen("a gave up") > 0 {
			t.Errorf("%d initiations in 200 s", got)
		}
		if got := dropped(w.node("a").(*ourNode).e, dropParkFull); got != 200-maxParkedPackets {
			t.Errorf("%d parked packets made room, want %d", got, 200-maxParkedPackets)
		}
	})
}

// TestErase: 540 s after the last handshake nothing is left of a session but
// stamp and totals (WG-44).
func TestErase(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		a := w.node("a").(*ourNode)
		s := a.session()
		w.until(539 * time.Second)
		if a.session() != s {
			t.Error("erased before its time")
		}
		w.until(542 * time.Second)
		if a.session() != nil || w.seen("a erased") != 1 || s.current.Load() != nil || s.shared.Load() != nil {
			t.Errorf("session %p is not erased\n%s", a.session(), w.story())
		}
		if kps, pendings := a.keypairs(); kps+pendings+a.e.indices.used != 0 {
			t.Errorf("%d keypairs, %d initiations, %d slots in use", kps, pendings, a.e.indices.used)
		}
		if p := a.peer(); p.TxBytes() == 0 || p.LastHandshake().IsZero() {
			t.Error("the totals are gone")
		}
		w.node("b").send(enginePacket("b", "again"))
		w.sleep(time.Second)
		w.wantArrived("a", "again")
	})
}

// TestLostMessages: each message of a handshake may be lost once, and the packet
// arrives all the same, after the retry.
func TestLostMessages(t *testing.T) {
	for _, lost := range []string{"initiation", "response", "data", "keepalive"} {
		for _, from := range []string{"a", "b"} {
			everyPair(t, func(w *engineWorld) {
				var once sync.Once
				w.lose(func(_, kind string) (lose bool) {
					if kind == lost {
						once.Do(func() { lose = true })
					}
					return lose
				})
				want := w.stream(from, 12, time.Second)
				w.sleep(10 * time.Second)
				if lost == "data" {
					want = want[1:]
				}
				w.wantArrived(other(from), want...)
			})
		}
	}
}

// TestLostConfirmation: the first packet under a new keypair is lost; the
// responder goes on under the old one until another comes (WG-38).
func TestLostConfirmation(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		w.until(125 * time.Second)
		lost := 0
		w.lose(func(route, kind string) bool {
			if route == "a>b" && (kind == "data" || kind == "keepalive") && w.seen("b>a response") == 2 && lost == 0 {
				lost++
				return true
			}
			return false
		})
		w.node("a").send(enginePacket("a", "rekey"))
		w.sleep(time.Second)
		want := w.stream("b", 3, 100*time.Millisecond)
		w.node("a").send(enginePacket("a", "confirm"))
		w.sleep(time.Second)
		if lost != 1 || w.seen("a>b initiation") != 2 {
			t.Fatalf("the case did not occur\n%s", w.story())
		}
		w.wantArrived("a", want...)
		w.wantArrived("b", "open", "rekey", "confirm")
	})
}

// TestCrossing: both sides start at once, at every offset up to a round trip. We
// answer without giving up our own initiation, so it takes 1.5 round trips and
// no retry (WG-39).
func TestCrossing(t *testing.T) {
	for offset := -engineRTT; offset <= engineRTT; offset += engineRTT / 12 {
		everyPair(t, func(w *engineWorld) {
			first, second, gap := "a", "b", offset
			if offset < 0 {
				first, second, gap = "b", "a", -offset
			}
			w.node(first).send(enginePacket(first, "one"))
			w.sleep(gap)
			w.node(second).send(enginePacket(second, "two"))
			w.sleep(4*engineRTT - gap)
			w.wantArrived(second, "one")
			w.wantArrived(first, "two")
			want := [2][]string{w.stream("a", 20, time.Second), w.stream("b", 20, time.Second)}
			if got := w.arrived("b"); !slices.Equal(got[1:], want[0]) {
				t.Errorf("offset %v: b got %q", offset, got)
			}
			if got := w.arrived("a"); !slices.Equal(got[1:], want[1]) {
				t.Errorf("offset %v: a got %q", offset, got)
			}
		})
	}
}

// TestPeerRestarts: a peer that starts anew is answered at once when it speaks
// first, and found out after 15 s when it does not (WG-48).
func TestPeerRestarts(t *testing.T) {
	for _, restarted := range []func(*engineWorld, string) engineNode{engineUpstream, engineOurs} {
		engineTest(t, engineOurs, restarted, func(w *engineWorld) {
			w.open("a")
			w.node("b").close()
			w.sleep(time.Second)
			w.put("b", restarted(w, "b"))
			synctest.Wait()
			w.node("b").send(enginePacket("b", "new"))
			w.sleep(engineRTT * 2)
			w.wantArrived("a", "new")
			w.node("a").send(enginePacket("a", "answer"))
			w.sleep(engineRTT)
			w.wantArrived("b", "open", "answer")
		})
		engineTest(t, engineOurs, restarted, func(w *engineWorld) {
			w.open("a")
			w.node("b").close()
			w.sleep(time.Second)
			w.put("b", restarted(w, "b"))
			synctest.Wait()
			sent := w.now()
			w.node("a").send(enginePacket("a", "lost"))
			w.sleep(16 * time.Second)
			w.node("a").send(enginePacket("a", "heard"))
			w.sleep(time.Second)
			w.wantArrived("b", "open", "heard")
			at := w.times("a>b initiation")
			if restarted := at[len(at)-1] - sent; restarted > 15*time.Second+maxJitter+wakeSlack {
				t.Errorf("found out after %v", restarted)
			}
		})
	}
}

// TestWeRestart: upstream goes on with its keypair after we started anew, and we
// tell it by a handshake at once, because the index is unknown (WG-49, WG-52).
func TestWeRestart(t *testing.T) {
	engineTest(t, engineOurs, engineUpstream, func(w *engineWorld) {
		w.open("a")
		w.node("a").close()
		w.sleep(time.Second)
		w.put("a", engineOurs(w, "a"))
		w.sleep(time.Millisecond)
		started := w.now()
		w.node("b").send(enginePacket("b", "lost"))
		w.sleep(engineRTT * 3)
		w.node("b").send(enginePacket("b", "heard"))
		w.sleep(engineRTT)
		w.wantArrived("a", "heard")
		w.wantTimes("a>b initiation", 0, 0, started+engineRTT/2)
		for range 10 { // at most one want in 15 s
			w.node("a").take(append([]byte{4, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 40)...))
		}
		w.sleep(time.Second)
		if got := w.seen("a>b initiation"); got != 2 {
			t.Errorf("%d initiations", got)
		}
	})
}

// TestUnreliableWire: with loss, duplicates and reordering every packet that
// arrives does so once, and the tunnel recovers from whatever was lost.
func TestUnreliableWire(t *testing.T) {
	for seed := range uint64(6) {
		everyPair(t, func(w *engineWorld) {
			random := rand.New(rand.NewPCG(seed, 7))
			var mu sync.Mutex
			w.setRule(func(string, string) (delays []time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				for random.IntN(10) > 2 {
					delays = append(delays, time.Duration(random.Int64N(int64(300*time.Millisecond))))
				}
				return delays
			})
			for i := range 400 {
				for _, from := range []string{"a", "b"} {
					w.node(from).send(enginePacket(from, fmt.Sprint(i)))
				}
				w.sleep(time.Second)
			}
			w.setRule(nil)
			w.sleep(20 * time.Second)
			for _, to := range []string{"a", "b"} {
				w.node(other(to)).send(enginePacket(other(to), "end"))
				w.sleep(time.Second)
				got := w.arrived(to)
				if len(got) < 150 || got[len(got)-1] != "end" {
					t.Errorf("seed %d: %d packets arrived at %s, last %q", seed, len(got), to, got[len(got)-1])
				}
				slices.Sort(got)
				if n := len(slices.Compact(slices.Clone(got))); n != len(got) {
					t.Errorf("seed %d: %d of %d packets arrived twice at %s", seed, len(got)-n, len(got), to)
				}
			}
		})
	}
}

// TestSourceChanges: a session does not care where its packets come from (WG-32),
// and reports each new source (WG-57).
func TestSourceChanges(t *testing.T) {
	engineTest(t, engineOurs, engineUpstream, func(w *engineWorld) {
		w.open("a")
		a := w.node("a").(*ourNode)
		var want []string
		for i := range 20 {
			a.src = &Source{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 9}), uint16(1000+i))}
			want = append(want, fmt.Sprint(i))
			w.node("b").send(enginePacket("b", want[i]))
			w.sleep(time.Second)
		}
		w.wantArrived("a", want...)
		if got := w.seen("a heard from :1000"); got != 1 {
			t.Errorf("source 1000 was reported %d times", got)
		}
		if got := w.seen("a heard from :1019"); got != 1 {
			t.Errorf("source 1019 was reported %d times", got)
		}
		for range 25 {
			w.node("b").send(enginePacket("b", "same"))
			w.sleep(time.Second)
		}
		if got := w.seen("a heard from :1019"); got != 3 {
			t.Errorf("a steady source was reported %d times in 25 s, want 3", got)
		}
	})
}

// TestBurstsOf64: long bursts pass both ways, also when the burst is what opens
// the tunnel.
func TestBurstsOf64(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		for _, from := range []string{"a", "b", "a"} {
			var pkts [][]byte
			for i := range 64 {
				pkts = append(pkts, enginePacket(from, fmt.Sprintf("%s%d", from, i)))
			}
			w.node(from).send(pkts...)
			w.sleep(time.Second)
		}
		if a, b := len(w.arrived("a")), len(w.arrived("b")); a != 64 || b != 128 {
			t.Errorf("%d packets arrived at a, %d at b", a, b)
		}
	})
}
