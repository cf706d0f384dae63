package wireguard

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// TestKeypairSlots: the table of doc/protocol/wireguard.md section 4.2. Two
// predecessors go on receiving, an unconfirmed next is replaced (WG-37).
func TestKeypairSlots(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		var hs []*paperHandshake
		for i := range 4 {
			h := newPaper(w, byte(10+i))
			a.give(h.initiate(w, uint32(7+i), w.stamp(time.Duration(i+1)*time.Second)))
			h.finish(w, b.next())
			a.give(h.data(0, enginePacket("b", fmt.Sprint("new", i))))
			hs = append(hs, h)
		}
		for i, h := range hs {
			a.give(h.data(1, enginePacket("b", fmt.Sprint("again", i))))
		}
		w.wantArrived("a", "new0", "new1", "new2", "new3", "again1", "again2", "again3")
		if kps, _ := a.keypairs(); kps != 3 {
			t.Errorf("%d keypairs, want 3", kps)
		}
		replaced, kept := newPaper(w, 20), newPaper(w, 21)
		a.give(replaced.initiate(w, 30, w.stamp(20*time.Second)))
		replaced.finish(w, b.next())
		a.give(kept.initiate(w, 31, w.stamp(21*time.Second)))
		kept.finish(w, b.next())
		a.give(replaced.data(0, enginePacket("b", "replaced")))
		a.give(kept.data(0, enginePacket("b", "kept")))
		if got := w.arrived("a"); got[len(got)-1] != "kept" || slices.Contains(got, "replaced") {
			t.Errorf("a got %q", got)
		}
	})
}

// TestExpire: WG-51. Nothing goes out under the keypair any more, packets are
// still received, and the handshake waits for a packet.
func TestExpire(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		h := w.openPaper(a, b)
		for _, expire := range []func(){func() { a.e.Expire(a.peer()) }, a.e.ExpireAll} {
			expire()
			w.sleep(30 * time.Second)
			if len(b.got) != 0 || a.session().current.Load() != nil {
				t.Fatalf("sent %x\n%s", b.got, w.story())
			}
			a.give(h.data(uint64(w.now()), enginePacket("b", "old")))
			a.send(enginePacket("a", "new"))
			w.sleep(engineRTT)
			if len(b.got) != 1 || engineKind(b.got[0]) != "initiation" {
				t.Fatalf("sent %x\n%s", b.got, w.story())
			}
			a.give(newPaper(w, 5).respond(w, b.next(), 6))
			b.got = nil
		}
		w.wantArrived("a", "old", "old")
	})
}

// TestPeerRemoved: WG-50. All is gone at once, for the fast path too; the peer
// may come back, and an old initiation is still refused if it comes at once.
func TestPeerRemoved(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		w.openPaper(a, b)
		msg := newPaper(w, 5).initiate(w, 7, w.stamp(time.Second))
		a.give(msg)
		b.got = nil
		p, s := a.peer(), a.session()
		a.e.Expire(p)
		synctest.Wait()
		a.send(enginePacket("a", "parked"))
		synctest.Wait()
		k := p.Key()
		a.e.Update(PeerDiff{Remove: []*Peer{p}})
		a.e.Update(PeerDiff{Add: []NewPeer{{Key: k, Owner: "again"}}})
		synctest.Wait()
		if kps, pendings := a.keypairs(); kps+pendings != 0 || s.current.Load() != nil || w.seen("a erased") != 1 {
			t.Errorf("%d keypairs, %d initiations are left\n%s", kps, pendings, w.story())
		}
		if a.e.sessionOf(p) != nil || dropped(a.e, dropParked) != 1 || a.e.Stats().Sessions != 0 {
			t.Errorf("a removed peer has a session, %+v", a.e.Stats())
		}
		a.e.Expire(p) // no effect
		if a.peer() == p || a.peer().Owner != "again" {
			t.Error("the peer did not come back as another")
		}
		responses := w.seen("a>b response")
		a.give(msg)
		if w.seen("a>b response") != responses {
			t.Error("the replay of an initiation was answered")
		}
	})
}

// TestStampSteps: WG-11. The wall clock cannot be set back in a test, so the last
// stamp is set forward.
func TestStampSteps(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.e.stamps.last = w.stamp(time.Hour)
		a.send(enginePacket("a", "x"))
		w.sleep(6 * time.Second)
		last := w.stamp(time.Hour)
		for _, msg := range b.got {
			m, err := parseInitiation(msg)
			if err != nil {
				t.Fatal(err)
			}
			h := newPaper(w, 3)
			_, state, err := h.id.identify(&m)
			if err != nil {
				t.Fatal(err)
			}
			shared, err := h.id.shared(&h.a)
			if err != nil {
				t.Fatal(err)
			}
			stamp, err := state.authenticate(&m, &shared)
			if err != nil || !stamp.After(last) {
				t.Errorf("stamp %x after %x, %v", stamp, last, err)
			}
			last = stamp
		}
		if len(b.got) != 2 {
			t.Errorf("%d initiations", len(b.got))
		}
	})
}

// TestUnknownIndexOfRelay: WG-52 for a source whose key a relay vouches for, and
// for nobody else.
func TestUnknownIndexOfRelay(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		d := append([]byte{4, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 40)...)
		for _, src := range []*Source{
			{Region: 1, Key: key.NewNode().Public()},
			{Region: 1, Key: w.keys["b"].Public()},
			{Addr: netip.MustParseAddrPort("192.0.2.77:1")},
		} {
			a.e.config.PeerAt = nil
			a.src = src
			a.give(d)
		}
		if got := w.seen("a>b initiation"); got != 1 {
			t.Errorf("%d initiations, want 1\n%s", got, w.story())
		}
		if got := dropped(a.e, dropUnknownIndex); got != 3 {
			t.Errorf("%d unknown indices counted, want 3", got)
		}
		for range 2 * unknownPerSecond {
			a.src = &Source{Region: 1, Key: w.keys["b"].Public()}
			a.take(d)
		}
		if got := dropped(a.e, dropEvent); got < unknownPerSecond-1 {
			t.Errorf("%d hints were over the rate", got)
		}
	})
}

// TestCrossedSlots: our response arrives when next has just been confirmed and
// the actor has not seen it yet: both become current, one after the other.
func TestCrossedSlots(t *testing.T) {
	e, p := laneEngine(t, 1280)
	l, s := newLoop(e), e.sessionOf(p)
	made := func(initiator bool) *keypair {
		return l.newKeypair(s, new(transportKeys), e.indices.choose(), 1, initiator)
	}
	old, next, ours := made(true), made(false), made(true)
	l.setCurrent(s, old)
	l.setNext(s, next)
	next.unconfirmed.Store(false)
	l.setCurrent(s, ours)
	if s.current.Load() != ours || s.next != nil || s.previous != [2]*keypair{next, old} {
		t.Error("the slots are not current := ours, previous := next, old")
	}
	if got := e.Stats().Handshakes; got != 3 {
		t.Errorf("%d keypairs became current, want 3", got)
	}
	unconfirmed, again := made(false), made(true)
	l.setNext(s, unconfirmed)
	l.setCurrent(s, again)
	if s.current.Load() != again || s.previous != [2]*keypair{unconfirmed, ours} || e.lookup(old.local) != nil || e.lookup(next.local) != nil {
		t.Error("the slots are not current := again, previous := unconfirmed, ours")
	}
	if e.lookup(unconfirmed.local) != unconfirmed || !unconfirmed.unconfirmed.Load() {
		t.Error("an unconfirmed keypair does not go on receiving after a crossing")
	}
}

// TestMessageLimits: doc/protocol/wireguard.md section 10.1 row 9. Past 2^60
// messages a handshake is wanted, once; at the limit nothing is sealed any more,
// and packets wait for the next keypair (WG-27).
func TestMessageLimits(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		w.open("a")
		a := w.node("a").(*ourNode)
		a.session().current.Load().counter.Store(rekeyAfterMessages)
		w.until(10 * time.Second)
		want := w.stream("a", 3, time.Second)
		w.wantTimes("a>b initiation", 0, 0, 10*time.Second)

		kp := a.session().current.Load()
		kp.counter.Store(rejectAfterMessages - 1)
		w.until(20 * time.Second)
		sent := w.seen("a>b data")
		a.send(enginePacket("a", "last"), enginePacket("a", "one too many"))
		if got := w.seen("a>b data"); got != sent || kp.counter.Load() != rejectAfterMessages-1 {
			t.Errorf("%d datagrams were sealed at the limit, counter %d", got-sent, kp.counter.Load())
		}
		w.sleep(time.Second)
		w.wantTimes("a>b initiation", 0, 0, 10*time.Second, 20*time.Second)
		w.wantArrived("b", append(append([]string{"open"}, want...), "last", "one too many")...)
	})
}

// TestReserve: a range is handed out whole or not at all, and the counter does
// not wrap.
func TestReserve(t *testing.T) {
	kp := new(keypair)
	kp.counter.Store(rejectAfterMessages - 3)
	for _, c := range []struct {
		n     int
		first uint64
		ok    bool
	}{{4, 0, false}, {2, rejectAfterMessages - 3, true}, {2, 0, false}, {1, rejectAfterMessages - 1, true}, {1, 0, false}, {maxReserve, 0, false}} {
		if first, ok := kp.reserve(c.n); first != c.first || ok != c.ok {
			t.Errorf("reserve(%d) = %d, %v, want %d, %v", c.n, first, ok, c.first, c.ok)
		}
	}
	if kp.sendable(0, 1) || kp.counter.Load() != rejectAfterMessages {
		t.Errorf("counter %d of a spent keypair", kp.counter.Load())
	}
}

// TestReasons: each reason has a name of its own.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reasons {
		if r.String() == "" || r.String() == "unknown" || seen[r.String()] {
			t.Errorf("reason %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
	if Reasons.String() != "unknown" {
		t.Errorf("no reason is called %q", Reasons)
	}
}

// TestOvertaken: what the worker has passed on may have lost its object when the
// actor comes to it: it is dropped and counted, and nothing comes back to life.
func TestOvertaken(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.send(enginePacket("a", "hello"))
		w.sleep(engineRTT)
		h := newPaper(w, 4)
		r, err := parseResponse(h.respond(w, b.next(), 6))
		if err != nil {
			t.Fatal(err)
		}
		late := a.e.indices.pending(r.Receiver)
		w.sleep(6 * time.Second) // another initiation
		a.e.inbox <- &answered{pending: late, src: a.src, response: r}
		w.sleep(time.Millisecond)
		if got := dropped(a.e, dropUnknownIndex); got != 1 || a.session().current.Load() != nil {
			t.Errorf("%d late responses were counted\n%s", got, w.story())
		}
		p, s := a.peer(), a.session()
		a.e.Update(PeerDiff{Remove: []*Peer{p}})
		synctest.Wait()
		a.e.inbox <- &verified{peer: p, src: a.src, stamp: w.stamp(time.Hour)}
		a.e.inbox <- &cookied{session: s}
		s.raise(eventWant)
		w.sleep(time.Minute)
		if got := dropped(a.e, dropUnknownSender); got != 1 || w.seen("a>b response") != 0 || w.seen("a>b initiation") != 2 {
			t.Errorf("%d initiations of a removed peer were counted\n%s", got, w.story())
		}
	})
}
