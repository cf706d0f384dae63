package wireguard

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// TestResponderIsSilent: doc/protocol/wireguard.md section 10.1 row 5. Until the
// initiator has proved that it knows the keys nothing but the response leaves,
// although a packet waits (WG-38).
func TestResponderIsSilent(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.first = "first"
		h := newPaper(w, 3)
		a.give(h.initiate(w, 7, w.stamp(0)))
		a.send(enginePacket("a", "waiting"))
		w.sleep(4 * time.Second)
		if len(b.got) != 1 || engineKind(b.got[0]) != "response" || w.seen("a up as responder") != 0 {
			t.Fatalf("sent %x\n%s", b.got, w.story())
		}
		h.finish(w, b.next())
		a.give(h.data(0, nil))
		if len(b.got) != 2 || w.seen("a up as responder") != 1 {
			t.Fatalf("after the confirmation sent %x\n%s", b.got, w.story())
		}
		for i, want := range []string{"first", "waiting"} {
			d := b.next()
			plain, ok := tryUnseal(h.keys.receive[:], d)
			if !ok || engineReceiver(d) != 7 || engineTextOf(plain[:20+len(want)]) != want {
				t.Errorf("packet %d is %x, want %q", i, plain, want)
			}
		}
	})
}

// TestFirstPacketOnBothSides: the packet of WG-58 goes once per keypair, first,
// instead of the confirming keepalive, and starts no handshake by itself.
func TestFirstPacketOnBothSides(t *testing.T) {
	engineTest(t, engineOurs, engineOurs, func(w *engineWorld) {
		w.node("a").(*ourNode).first, w.node("b").(*ourNode).first = "A", "B"
		w.sleep(time.Minute)
		if w.seen("a>b initiation")+w.seen("b>a initiation") != 0 {
			t.Error("a handshake without a packet")
		}
		want := w.stream("a", 130, time.Second)
		wantB := append([]string{"A"}, want...)
		for i, text := range wantB {
			if text == "a124" { // the first after the second keypair
				wantB = slices.Insert(wantB, i, "A")
				break
			}
		}
		w.wantArrived("a", "B", "B")
		w.wantArrived("b", wantB...)
	})
}

// TestConfirmation: an initiator without anything to say confirms by an empty
// packet, at once.
func TestConfirmation(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		w.openPaper(a, b)
		a.e.Expire(a.peer())
		synctest.Wait()
		a.send(enginePacket("a", "x"))
		w.sleep(engineRTT)
		h := newPaper(w, 9)
		msg := b.next()
		a.session().dropParked(false)
		a.give(h.respond(w, msg, 8))
		if len(b.got) != 1 || engineKind(b.got[0]) != "keepalive" {
			t.Errorf("sent %x\n%s", b.got, w.story())
		}
	})
}

// openPaper opens a tunnel by a packet of a, with a nobody as responder.
func (w *engineWorld) openPaper(a *ourNode, b *nobody) *paperHandshake {
	w.t.Helper()
	a.send(enginePacket("a", "open"))
	w.sleep(engineRTT)
	h := newPaper(w, 4)
	a.give(h.respond(w, b.next(), 6))
	if len(b.got) != 1 || engineKind(b.next()) != "data" {
		w.t.Fatalf("no tunnel\n%s", w.story())
	}
	return h
}

// TestForgeries: doc/protocol/wireguard.md section 10.1 row 6. A thousand forged
// responses, with the right index and MAC1, change nothing, and the good one
// still counts (WG-06, WG-36).
func TestForgeries(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.send(enginePacket("a", "hello"))
		w.sleep(engineRTT)
		h := newPaper(w, 4)
		good := h.respond(w, b.next(), 6)
		pend := a.session().pending
		before, at := pend.state, a.session().attempt
		for i := range 1000 {
			bad := bytes.Clone(good)
			bad[12+i%48] ^= byte(1 + i/48)
			a.take(h.mac(bad))
			if i%40 == 39 {
				w.sleep(time.Second) // within the rate of failures
				if w.now() > 4*time.Second {
					break
				}
			}
		}
		synctest.Wait()
		if got := dropped(a.e, dropBadHandshake); got < 100 {
			t.Errorf("%d forgeries failed", got)
		}
		if a.session().pending != pend || pend.state != before || a.session().attempt != at {
			t.Error("forgeries changed the pending initiation")
		}
		a.give(good)
		if len(b.got) != 1 || engineKind(b.got[0]) != "data" {
			t.Errorf("the good response was not taken\n%s", w.story())
		}
	})
}

// TestManyForgeries: more than 50 failures a second make responses to that
// initiation subject to a cookie, and to no other (WG-36).
func TestManyForgeries(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.send(enginePacket("a", "hello"))
		w.sleep(engineRTT)
		h := newPaper(w, 4)
		good := h.respond(w, b.next(), 6)
		bad := bytes.Clone(good)
		bad[50]++
		h.mac(bad)
		for range 100 {
			a.take(bad)
			synctest.Wait()
		}
		tried := dropped(a.e, dropBadHandshake)
		if tried < failuresPerSecond || tried > failuresPerSecond+2 || dropped(a.e, dropNoCookie) != 100-tried {
			t.Errorf("%d forgeries were tried, %d answered by a cookie", tried, dropped(a.e, dropNoCookie))
		}
		w.sleep(engineRTT)
		m, err := parseCookieReply(b.got[len(b.got)-1])
		if err != nil {
			t.Fatal(err)
		}
		var jar cookieJar
		jar.note(bad)
		if !jar.put(&m, &h.a, 1) {
			t.Fatal("the cookie does not open")
		}
		at1, _ := macOffsets(good)
		clear(good[at1:])
		mac1Key := labelled(labelMAC1, &h.a)
		addMACs(good, &mac1Key, jar.get(1))
		b.got = nil
		a.give(good)
		if len(b.got) != 1 || engineKind(b.got[0]) != "data" {
			t.Errorf("the good response with its cookie was not taken\n%s", w.story())
		}
	})
}

// TestLateResponse: doc/protocol/wireguard.md section 10.1 row 4. A response to an
// initiation that was replaced is not taken, also when its index came back.
func TestLateResponse(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.e.indices.random = &engineRandom{next: []uint32{42, 43, 42}}
		a.send(enginePacket("a", "hello"))
		w.sleep(engineRTT)
		h := newPaper(w, 4)
		late := h.respond(w, b.next(), 6)
		w.sleep(5500 * time.Millisecond) // second initiation
		b.next()
		a.give(late)
		if got := dropped(a.e, dropUnknownIndex); got != 1 {
			t.Errorf("%d responses had an unknown index", got)
		}
		w.sleep(5300 * time.Millisecond) // third initiation, first index
		b.next()
		a.give(late)
		if got := dropped(a.e, dropBadHandshake); got != 1 {
			t.Errorf("%d responses failed", got)
		}
		if len(b.got) != 0 || a.session().current.Load() != nil {
			t.Errorf("a late response was taken\n%s", w.story())
		}
	})
}

// TestReplayedInitiations: doc/protocol/wireguard.md section 10.1 row 7. Neither a
// replay nor an equal or older stamp resets anything or closes our gate.
func TestReplayedInitiations(t *testing.T) {
	engineTest(t, engineOurs, engineOurs, func(w *engineWorld) {
		w.open("b")
		for range 3 {
			w.stream("b", 125, time.Second)
			a := w.node("a").(*ourNode)
			s := a.session()
			current, next, at, erase := s.current.Load(), s.next, s.attempt, s.eraseAt
			initiations := w.datagrams("b>a initiation")
			responses := w.seen("a>b response")
			for _, msg := range initiations {
				a.give(msg)
			}
			if s.current.Load() != current || s.next != next || s.attempt != at || s.eraseAt != erase || w.seen("a>b response") != responses {
				t.Errorf("a replay of %d initiations changed the session\n%s", len(initiations), w.story())
			}
		}
		if got := dropped(w.node("a").(*ourNode).e, dropOldStamp); got != 2+3+4 {
			t.Errorf("%d old stamps were counted", got)
		}
	})
}

// TestInitiationGap: WG-08, WG-10, as measured on upstream.
func TestInitiationGap(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		try := func(what string, stamp timestamp, want int, reason Reason) {
			t.Helper()
			b.got = nil
			before := dropped(a.e, reason)
			a.take(newPaper(w, 3).initiate(w, 7, stamp))
			synctest.Wait()
			if got := w.seen("a>b response"); got != want {
				t.Errorf("%s: %d responses, want %d", what, got, want)
			}
			if got := dropped(a.e, reason) - before; got != 0 && reason == dropVerdict || got != 1 && reason != dropVerdict {
				t.Errorf("%s: %d counted as %v", what, got, reason)
			}
		}
		try("first", w.stamp(0), 1, dropVerdict)
		w.sleep(19 * time.Millisecond)
		try("newer, 19 ms later", w.stamp(time.Second), 1, dropTooSoon)
		w.sleep(2 * time.Millisecond)
		try("newer, 21 ms later", w.stamp(time.Second), 2, dropVerdict)
		w.sleep(time.Second)
		try("same stamp", w.stamp(time.Second), 2, dropOldStamp)
		try("older stamp", w.stamp(0), 2, dropOldStamp)
		try("next tick", after(w.stamp(time.Second)), 3, dropVerdict)
	})
}

// TestWhoIsAnswered: WG-08, WG-09. Nothing is allocated for anybody else.
func TestWhoIsAnswered(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		raw := w.keys["a"].Raw()
		stranger := key.NodePrivateFromRaw([32]byte{9, 9}).Raw()
		ourselves, unknown := newPaper(w, 3), newPaper(w, 3)
		ourselves.id, unknown.id = engineIdentity(t, raw[:]), engineIdentity(t, stranger[:])
		a.give(ourselves.initiate(w, 7, w.stamp(0)))
		a.give(unknown.initiate(w, 7, w.stamp(0)))
		spoilt := newPaper(w, 3).initiate(w, 7, w.stamp(0))
		a.give(append(bytes.Clone(spoilt[:115]), make([]byte, 33)...)) // MAC1 wrong
		a.give(newPaper(w, 3).mac(append(bytes.Clone(spoilt[:100]), make([]byte, 48)...)))
		a.give(spoilt[:147])
		a.give(make([]byte, 4))
		for reason, want := range map[Reason]int{dropOwnKey: 1, dropUnknownSender: 1, dropMAC1: 1, dropBadHandshake: 1, dropMalformed: 2} {
			if got := dropped(a.e, reason); got != want {
				t.Errorf("%d dropped as %v, want %d", got, reason, want)
			}
		}
		if len(b.got) != 0 || a.session() != nil || a.e.Stats().Sessions != 0 {
			t.Errorf("something was answered or made\n%s", w.story())
		}
		// The owner of our own key is no peer, and a key twice is one peer.
		a.e.Update(PeerDiff{Add: []NewPeer{{Key: w.keys["a"].Public()}, {Key: w.keys["b"].Public(), Owner: 2}}})
		synctest.Wait()
		if a.e.Peer(w.keys["a"].Public()) != nil || a.e.Stats().Peers != 1 || a.peer().Owner != nil {
			t.Error("our own key is a peer, or a peer was added twice")
		}
	})
}

// TestPeerWithLowOrderKey: a peer whose key has no shared secret gets no
// handshake; its packets are dropped and counted (WG-05).
func TestPeerWithLowOrderKey(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		a.e.Update(PeerDiff{Add: []NewPeer{{Key: key.NodePublicFromRaw([32]byte{1})}}})
		synctest.Wait()
		p := a.e.Peer(key.NodePublicFromRaw([32]byte{1}))
		s := a.e.sessionOf(p)
		s.park([]packet.Outbound{{Head: enginePacket("a", "x")}}, a.e.Now())
		synctest.Wait()
		if s.attempt.wanting || s.parking() || dropped(a.e, dropBadKey) != 1 || dropped(a.e, dropParked) != 1 {
			t.Errorf("session %+v, %+v", s.attempt, a.e.Stats())
		}
		w.sleep(600 * time.Second)
		if p.live() != nil {
			t.Error("the session is not erased")
		}
	})
}

// TestHeal: WG-12. An initiation whose only fault is its stamp causes one of ours
// when there was no session for long, and then rarely.
func TestHeal(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		h := newPaper(w, 3)
		first := h.initiate(w, 7, w.stamp(time.Hour))
		old := newPaper(w, 3).initiate(w, 7, w.stamp(0))
		a.give(first)
		h.finish(w, b.next())
		a.give(h.data(0, nil))
		b.got = nil
		for _, c := range []struct {
			at   time.Duration
			want int
		}{{10 * time.Second, 0}, {300 * time.Second, 0}, {370 * time.Second, 1}, {400 * time.Second, 0}, {431 * time.Second, 1}, {439 * time.Second, 0}} {
			w.until(c.at)
			a.give(old)
			if len(b.got) != c.want {
				t.Errorf("at %v: %d messages, want %d\n%s", c.at, len(b.got), c.want, w.story())
			}
			b.got = nil
		}
		w.sleep(time.Minute) // no retries
		if len(b.got) != 0 {
			t.Errorf("%d more messages", len(b.got))
		}
		if _, pendings := a.keypairs(); pendings != 0 {
			t.Errorf("%d initiations are pending", pendings)
		}
	})
}

// TestGate: WG-41. After a response we wait 5 s before we initiate, unless the
// peer is said to have restarted.
func TestGate(t *testing.T) {
	for _, expire := range []bool{false, true} {
		paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
			a.give(newPaper(w, 3).initiate(w, 7, w.stamp(0)))
			answered := w.times("a>b response")[0]
			a.send(enginePacket("a", "waiting"))
			want := answered + rekeyTimeout
			if expire {
				w.until(time.Second)
				want = time.Second
				a.e.Expire(a.peer())
			}
			w.until(6 * time.Second)
			w.wantTimes("a>b initiation", wakeSlack, want)
		})
	}
}

// TestInitiationIsAnAnswer: a valid initiation shows that the peer is there, so
// that data sent before does not cause one of ours (WG-42).
func TestInitiationIsAnAnswer(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		w.openPaper(a, b)
		if a.session().noAnswerAt.Load() == 0 {
			t.Fatal("data was sent and no answer is awaited")
		}
		w.until(10 * time.Second)
		a.give(newPaper(w, 9).initiate(w, 9, w.stamp(time.Second)))
		if at := a.session().noAnswerAt.Load(); at != 0 {
			t.Errorf("an answer is awaited until %d", at)
		}
		if heard := a.peer().LastHeard(); heard < Tick(10*time.Second) {
			t.Errorf("last heard at %v", time.Duration(heard))
		}
		w.until(30 * time.Second)
		w.wantTimes("a>b initiation", 0, 0)
	})
}
