package wireguard

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// A nobody is the other end of a tunnel as written on paper: it does nothing but
// keep what it gets, and the test makes its messages.
type nobody struct{ got [][]byte }

func (n *nobody) take(b []byte) { n.got = append(n.got, b) }
func (*nobody) send(...[]byte)  {}
func (*nobody) close()          {}
func (n *nobody) next() (b []byte) {
	b, n.got = n.got[0], n.got[1:]
	return b
}

func engineNobody(*engineWorld, string) engineNode { return new(nobody) }

// paper runs a test with our node "a" and a nobody, whose key is that of "b".
func paper(t *testing.T, test func(w *engineWorld, a *ourNode, b *nobody)) {
	t.Helper()
	engineTest(t, engineOurs, engineNobody, func(w *engineWorld) {
		test(w, w.node("a").(*ourNode), w.node("b").(*nobody))
	})
}

// A paperHandshake is the nobody's side of one handshake.
type paperHandshake struct {
	id    *identity
	a     [32]byte // our public key
	state symmetric
	eph   [32]byte
	keys  transportKeys
	peer  uint32 // index to send to
}

func newPaper(w *engineWorld, eph byte) *paperHandshake {
	raw := w.keys["b"].Raw()
	return &paperHandshake{id: engineIdentity(w.t, raw[:]), a: w.keys["a"].Public().Raw(), eph: [32]byte(bytes.Repeat([]byte{eph}, 32))}
}

// initiate makes an initiation with an index and a stamp.
func (h *paperHandshake) initiate(w *engineWorld, index uint32, stamp tai64n.Timestamp) []byte {
	shared, err := h.id.shared(&h.a)
	if err != nil {
		w.t.Fatal(err)
	}
	m := initiation{Sender: index}
	if h.state, err = h.id.initiate(&m, &h.a, &shared, engineECDH(w.t, h.eph[:]), &stamp); err != nil {
		w.t.Fatal(err)
	}
	return h.mac(m.append(nil))
}

func (h *paperHandshake) mac(msg []byte) []byte {
	mac1Key := labelled(labelMAC1, &h.a)
	addMACs(msg, &mac1Key, nil)
	return msg
}

// finish takes a response to initiate.
func (h *paperHandshake) finish(w *engineWorld, msg []byte) {
	m, err := parseResponse(msg)
	if err != nil {
		w.t.Fatal(err)
	}
	if h.keys, err = h.id.finish(&h.state, &m, engineECDH(w.t, h.eph[:])); err != nil {
		w.t.Fatal(err)
	}
	h.peer = m.Sender
}

// respond takes an initiation and makes the response.
func (h *paperHandshake) respond(w *engineWorld, msg []byte, index uint32) []byte {
	m, err := parseInitiation(msg)
	if err != nil {
		w.t.Fatal(err)
	}
	static, state, err := h.id.identify(&m)
	if err != nil {
		w.t.Fatal(err)
	}
	shared, err := h.id.shared(&static)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := state.authenticate(&m, &shared); err != nil {
		w.t.Fatal(err)
	}
	r := response{Sender: index, Receiver: m.Sender}
	if h.keys, err = state.respond(&r, &m.Ephemeral, &static, engineECDH(w.t, h.eph[:])); err != nil {
		w.t.Fatal(err)
	}
	h.peer = m.Sender
	return h.mac(r.append(nil))
}

// data makes a transport message.
func (h *paperHandshake) data(counter uint64, plain []byte) []byte {
	d := make([]byte, transportHeader, transportHeader+len(plain)+tagSize)
	d[0] = 4
	for i := range 4 {
		d[4+i] = byte(h.peer >> (8 * i))
	}
	for i := range 8 {
		d[8+i] = byte(counter >> (8 * i))
	}
	return mustAEAD(h.keys.send[:]).Seal(d, append(make([]byte, 4), d[8:16]...), plain, nil)
}

// give passes a datagram to a and waits for what comes of it.
func (n *ourNode) give(b []byte) {
	n.take(b)
	n.w.sleep(engineRTT)
}

func (w *engineWorld) stamp(d time.Duration) tai64n.Timestamp { return stampAt(w.start.Add(d)) }

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
		w.open2(a, b)
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

// open2 opens a tunnel by a packet of a, with a nobody as responder.
func (w *engineWorld) open2(a *ourNode, b *nobody) *paperHandshake {
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
		try := func(what string, stamp tai64n.Timestamp, want int, reason Reason) {
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
		h := w.open2(a, b)
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
		w.open2(a, b)
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

// TestInitiationIsAnAnswer: a valid initiation shows that the peer is there, so
// that data sent before does not cause one of ours (WG-42).
func TestInitiationIsAnAnswer(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		w.open2(a, b)
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
