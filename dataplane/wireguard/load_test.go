package wireguard

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// flood gives a node many copies of an initiation that nobody needs, from many
// addresses, and waits until it has looked at them.
func (w *engineWorld) flood(to string, msg []byte, n int) {
	for i := range n {
		if ours, ok := w.node(to).(*ourNode); ok {
			ours.e.Handshake(&Source{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 1)}, msg)
		} else {
			w.node(to).take(msg)
		}
	}
	synctest.Wait()
}

// engineStranger makes an initiation to a node from a key that is no peer.
func engineStranger(w *engineWorld, to string) []byte {
	id := engineIdentity(w.t, bytes.Repeat([]byte{0x77}, 32))
	public := w.keys[to].Public().Raw()
	shared, err := id.shared(&public)
	if err != nil {
		w.t.Fatal(err)
	}
	m, stamp := initiation{Sender: strangerIndex}, stampAt(w.start)
	if _, err := id.initiate(&m, &public, &shared, newEphemeral(), &stamp); err != nil {
		w.t.Fatal(err)
	}
	msg, mac1Key := m.append(nil), labelled(labelMAC1, &public)
	addMACs(msg, &mac1Key, nil)
	return msg
}

// TestCookiesUnderLoad: a loaded responder answers by a cookie, the initiator
// does not hurry, and its next retry passes with the cookie (WG-19, WG-21), with
// upstream in either role.
func TestCookiesUnderLoad(t *testing.T) {
	for name, loaded := range map[string]func(*engineWorld, string) engineNode{"upstream": engineUpstream, "ours": engineOurs} {
		for peer, initiator := range map[string]func(*engineWorld, string) engineNode{"upstream": engineUpstream, "ours": engineOurs} {
			t.Run(peer+" to loaded "+name, func(t *testing.T) {
				engineTest(t, initiator, loaded, func(w *engineWorld) {
					msg := engineStranger(w, "b")
					w.lose(func(_, kind string) bool { return kind == "stray" })
					w.node("a").send(enginePacket("a", "hello"))
					w.sleep(engineRTT/2 - time.Millisecond)
					w.flood("b", msg, 1500)
					w.sleep(3 * time.Second)
					if w.seen("a>b initiation") != 1 || w.seen("b>a response") != 0 {
						t.Fatalf("first initiation under load\n%s", w.story())
					}
					for w.now() < 7*time.Second {
						w.flood("b", msg, 1500)
						w.sleep(50 * time.Millisecond)
					}
					w.wantArrived("b", "hello")
					if got := w.seen("a>b initiation"); got != 2 {
						t.Errorf("%d initiations\n%s", got, w.story())
					}
					second := w.datagrams("a>b initiation")[1]
					if bytes.Equal(second[initiationSize-macSize:], make([]byte, macSize)) {
						t.Error("the retry carries no cookie")
					}
				})
			})
		}
	}
}

// A deskWorker is a worker without its goroutine, and what it sends.
type deskWorker struct {
	*worker
	peer    key.NodePublic
	replies []cookieReply
	posted  func() int // messages for the actor since the last call
}

func newDeskWorker(t testing.TB) (*deskWorker, key.NodePrivate) {
	t.Helper()
	d := &deskWorker{}
	private, peer := key.NewNode(), key.NewNode()
	e, err := New(Config{
		Private: private, MTU: 1280, Events: new(laneEvents), Send: func(*Peer, *Source, packet.Burst) {},
		Reply: func(_ *Source, msg []byte) {
			m, err := parseCookieReply(msg)
			if err != nil {
				t.Error(err)
			}
			d.replies = append(d.replies, m)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.peer = peer.Public()
	e.peers.add(&Peer{key: d.peer})
	d.worker = newWorker(context.Background(), e)
	d.posted = func() (n int) {
		for len(e.inbox) > 0 {
			<-e.inbox
			n++
		}
		return n
	}
	return d, peer
}

// message makes an initiation of a peer.
func (d *deskWorker) made(t testing.TB, from key.NodePrivate) []byte {
	t.Helper()
	raw := from.Raw()
	id := engineIdentity(t, raw[:])
	shared, err := id.shared(&d.e.identity.public)
	if err != nil {
		t.Fatal(err)
	}
	m, stamp := initiation{Sender: 5}, stampAt(time.Now())
	if _, err := id.initiate(&m, &d.e.identity.public, &shared, newEphemeral(), &stamp); err != nil {
		t.Fatal(err)
	}
	msg := m.append(nil)
	addMACs(msg, &d.e.identity.mac1Key, nil)
	return msg
}

// TestLoadPolicy: WG-18, WG-19, WG-23, message by message.
func TestLoadPolicy(t *testing.T) {
	d, peer := newDeskWorker(t)
	udp, far := engineUDP("203.0.113.9:41641"), engineUDP("203.0.113.9:41642")
	relay, stranger := &Source{Region: 1, Key: d.peer}, &Source{Region: 1, Key: key.NewNode().Public()}
	msg := d.made(t, peer)
	for range loadedAt - 1 {
		d.e.Handshake(udp, msg[:initiationSize-1]) // refused at the door
		d.e.ring.put(udp, msg)
	}
	d.take(1)
	if d.underLoad() {
		t.Error("127 waiting messages are load")
	}
	d.e.ring.put(udp, msg)
	d.e.ring.put(udp, msg)
	d.take(1)
	if !d.underLoad() || len(d.replies) != 1 {
		t.Fatalf("128 waiting messages are no load; %d replies", len(d.replies))
	}
	d.take(1000)
	d.posted()
	d.replies = nil

	// With its cookie the message passes, at the rate of its source, and from
	// there only.
	d.message(udp, msg)
	if len(d.replies) != 1 || d.replies[0].Receiver != 5 {
		t.Fatalf("replies %+v", d.replies)
	}
	var jar cookieJar
	jar.note(msg)
	if !jar.put(&d.replies[0], &d.e.identity.public, 1) {
		t.Fatal("the cookie does not open")
	}
	proven := bytes.Clone(msg)
	at1, _ := macOffsets(proven)
	clear(proven[at1:])
	addMACs(proven, &d.e.identity.mac1Key, jar.get(1))
	for _, c := range []struct {
		what    string
		src     *Source
		msg     []byte
		n, want int
		reason  Reason
	}{
		{"with its cookie", udp, proven, 20, sourceBurst, dropLimited},
		{"with a cookie of another source", far, proven, 3, 0, dropNoCookie},
		{"without a cookie, by a relay", relay, msg, 20, sourceBurst, dropLimited},
		{"by a relay, of no peer", stranger, msg, 3, 0, dropUnknownSender},
	} {
		before := dropped(d.e, c.reason)
		for range c.n {
			d.message(c.src, c.msg)
		}
		if got := d.posted(); got != c.want || dropped(d.e, c.reason)-before != c.n-c.want {
			t.Errorf("%s: %d of %d passed, %d counted as %v", c.what, got, c.n, dropped(d.e, c.reason)-before, c.reason)
		}
	}
	d.now += Tick(underLoadAfter)
	if d.underLoad() {
		t.Error("load lasts longer than a second")
	}
	d.message(stranger, msg) // without load MAC2 and source do not matter
	if d.posted() != 1 {
		t.Error("without load a message was refused")
	}
}

// take takes n messages from the ring, all when n is large.
func (d *deskWorker) take(n int) {
	for range n {
		waiting := d.e.ring.get(&d.slot)
		if waiting == 0 {
			return
		}
		d.now = d.e.Now()
		if waiting >= loadedAt {
			d.loadedAt = d.now
		}
		d.message(d.slot.src, d.slot.bytes())
		d.posted()
	}
}

// TestReplyLimit: WG-26.
func TestReplyLimit(t *testing.T) {
	d, peer := newDeskWorker(t)
	msg := d.made(t, peer)
	d.now = Tick(time.Hour)
	d.loadedAt = d.now
	for range 2 * repliesPerSecond {
		d.message(engineUDP("203.0.113.9:1"), msg)
	}
	if len(d.replies) != repliesPerSecond || dropped(d.e, dropReplyLimited) != repliesPerSecond {
		t.Errorf("%d replies, %d not sent", len(d.replies), dropped(d.e, dropReplyLimited))
	}
}

// TestRing: messages come out as they went in, and a full ring refuses.
func TestRing(t *testing.T) {
	r, src := newRing(), engineUDP("192.0.2.1:1")
	var slot ringSlot
	if r.slots != nil || r.get(&slot) != 0 {
		t.Error("a new ring is not empty")
	}
	for round := range 3 {
		for i := range ringSlots {
			if !r.put(src, []byte{byte(round), byte(i), byte(i >> 8)}) {
				t.Fatalf("message %d was refused", i)
			}
		}
		if r.put(src, []byte{1}) {
			t.Error("a full ring took a message")
		}
		for i := range ringSlots {
			if n := r.get(&slot); n != ringSlots-i || !bytes.Equal(slot.bytes(), []byte{byte(round), byte(i), byte(i >> 8)}) || slot.src != src {
				t.Fatalf("message %d of %d is %x", i, n, slot.bytes())
			}
		}
	}
}

// TestRingFull: what does not fit is counted, and nothing waits.
func TestRingFull(t *testing.T) {
	d, peer := newDeskWorker(t)
	msg := d.made(t, peer)
	for range ringSlots + 10 {
		d.e.Handshake(engineUDP("192.0.2.1:1"), msg)
	}
	if got := dropped(d.e, dropRingFull); got != 10 {
		t.Errorf("%d messages were counted", got)
	}
}

// TestCookieReplies: WG-21. Only an index of ours, and only ten a second.
func TestCookieReplies(t *testing.T) {
	paper(t, func(w *engineWorld, a *ourNode, b *nobody) {
		h := w.openPaper(a, b)
		var m cookieReply
		rand.Read(m.Cookie[:])
		m.Receiver = h.peer
		for range 50 {
			a.take(m.append(nil))
			synctest.Wait()
		}
		m.Receiver++
		a.give(m.append(nil))
		if got := dropped(a.e, dropBadCookie); got != 50 {
			t.Errorf("%d bad cookies", got)
		}
		if got := dropped(a.e, dropUnknownIndex); got != 1 {
			t.Errorf("%d unknown indices", got)
		}
		if a.session().jar.get(a.e.Now()) != nil || len(b.got) != 0 {
			t.Error("a forged cookie was kept, or answered")
		}
	})
}

// FuzzWorker gives the worker messages of every type whose MAC1 is right: it must
// refuse or pass them, but not fail.
func FuzzWorker(f *testing.F) {
	v := engineVectors(f)
	for _, msg := range [][]byte{v["initiation"], v["response"], v["cookiereply"], make([]byte, 32)} {
		f.Add(msg, false)
		f.Add(msg, true)
	}
	d, _ := newDeskWorker(f)
	d.e.identity = engineIdentity(f, v["B.private"])
	d.worker = newWorker(context.Background(), d.e)
	public := [32]byte(v["A.public"])
	d.e.peers.add(&Peer{key: key.NodePublicFromRaw(public)})
	pend := &pending{index: 0x01020304}
	d.e.indices.addPending(pend)
	src := engineUDP("192.0.2.1:1")
	f.Fuzz(func(t *testing.T, msg []byte, loaded bool) {
		kind, err := messageType(msg)
		if err == nil && (kind == typeInitiation || kind == typeResponse) {
			msg = bytes.Clone(msg)
			addMACs(msg, &d.e.identity.mac1Key, nil)
		}
		d.now = d.e.Now()
		d.loadedAt = 0
		if loaded {
			d.loadedAt = d.now
		}
		before := d.e.Stats()
		if err == nil {
			d.message(src, msg)
		} else {
			d.e.Handshake(src, msg)
		}
		after, drops := d.e.Stats(), uint64(0)
		for i := range after.Dropped {
			drops += after.Dropped[i] - before.Dropped[i]
		}
		if passed := d.posted(); passed+int(drops) < 1 || passed > 1 {
			t.Errorf("a message of type %d passed %d times and was counted %d times", kind, passed, drops)
		}
	})
}
