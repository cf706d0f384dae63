package wireguard

import (
	"context"
	"crypto/rand"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// TestBudget: the sizes that doc/protocol/wireguard.md section 5 counts on, per
// peer and per session (WG-53).
func TestBudget(t *testing.T) {
	if n := unsafe.Sizeof(Peer{}); n > 96 {
		t.Errorf("a peer record has %d bytes, more than 96", n)
	}
	session := unsafe.Sizeof(session{})
	if session > 700 {
		t.Errorf("a session has %d bytes without its keypairs", session)
	}
	if n := unsafe.Sizeof(keypair{}) + 2*64; n > 1280 {
		t.Errorf("a keypair has %d bytes", n)
	}
	if n := session + 4*(unsafe.Sizeof(keypair{})+2*64) + unsafe.Sizeof(pending{}); n > 6500 {
		t.Errorf("a session with all its keypairs has %d bytes", n)
	}
	if n := unsafe.Sizeof(ringSlot{}); n > 256 {
		t.Errorf("a slot of the handshake ring has %d bytes", n)
	}
}

// TestSteadyStateAllocates nothing: index lookup, activity and source reports are
// what each batch costs beside its packets.
func TestSteadyStateAllocates(t *testing.T) {
	e, p := laneEngine(t, 1280)
	kp := installOpening(e, p, laneKey, 77)
	s, src := e.sessionOf(p), engineUDP("192.0.2.1:1")
	s.nextCheck.Store(1 << 60)
	now := Tick(1)
	if n := testing.AllocsPerRun(1000, func() {
		now++
		if e.lookup(77) != kp || !kp.acceptable(now) {
			t.Fatal("keypair not found")
		}
		s.onReceived(kp, now, 1000, true)
		s.onSent(kp, now, 1000, true)
		e.heard(p, src, now)
	}); n != 0 {
		t.Errorf("a batch allocates %v times beside its packets", n)
	}
}

// TestKeysAreCollected: doc/protocol/wireguard.md section 10.1 row 10. Nothing of
// ours holds a keypair after its session was erased (WG-44).
func TestKeysAreCollected(t *testing.T) {
	e, p := laneEngine(t, 1280)
	l := newLoop(e)
	s := e.sessionOf(p)
	var held []weak.Pointer[keypair]
	for i := range 5 {
		kp := l.newKeypair(s, new(transportKeys), e.indices.choose(), 1, i%2 == 0)
		held = append(held, weak.Make(kp))
		if i == 4 {
			l.setNext(s, kp)
		} else {
			l.setCurrent(s, kp)
		}
	}
	p.session.Store(nil)
	l.erase(s)
	runtime.GC()
	for i, w := range held {
		if w.Value() != nil {
			t.Errorf("keypair %d is still held", i)
		}
	}
	runtime.KeepAlive(e)
	runtime.KeepAlive(s)
	runtime.KeepAlive(l)
}

func BenchmarkIndexLookup(b *testing.B) {
	e, p := laneEngine(b, 1280)
	kp := installOpening(e, p, laneKey, 77)
	b.ReportAllocs()
	for b.Loop() {
		if e.lookup(77) != kp {
			b.Fatal("keypair not found")
		}
	}
}

func BenchmarkMAC1(b *testing.B) {
	v := engineVectors(b)
	m, msg := newMacer(v["mac1key.B"]), v["initiation"]
	at1, at2 := macOffsets(msg)
	b.ReportAllocs()
	for b.Loop() {
		if !m.check(msg[:at1], msg[at1:at2]) {
			b.Fatal("MAC1 does not verify")
		}
	}
}

// BenchmarkHandshake is both roles of one handshake, codec included.
func BenchmarkHandshake(b *testing.B) {
	v := engineVectors(b)
	a, r := engineIdentity(b, v["A.private"]), engineIdentity(b, v["B.private"])
	shared := [32]byte(v["shared"])
	stamp := stampAt(time.Unix(1700000000, 0))
	b.ReportAllocs()
	for b.Loop() {
		m, eph := initiation{Sender: 1}, newEphemeral()
		state, err := a.initiate(&m, &r.public, &shared, eph, &stamp)
		if err != nil {
			b.Fatal(err)
		}
		static, s, err := r.identify(&m)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.authenticate(&m, &shared); err != nil {
			b.Fatal(err)
		}
		answer := response{Sender: 2, Receiver: 1}
		if _, err := s.respond(&answer, &m.Ephemeral, &static, newEphemeral()); err != nil {
			b.Fatal(err)
		}
		if _, err := a.finish(&state, &answer, eph); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPeers100k adds 100,000 peers to an engine.
func BenchmarkPeers100k(b *testing.B) {
	var diff PeerDiff
	for range 100_000 {
		var raw [32]byte
		rand.Read(raw[:])
		diff.Add = append(diff.Add, NewPeer{Key: key.NodePublicFromRaw(raw)})
	}
	b.ReportAllocs()
	for b.Loop() {
		e, _ := laneEngine(b, 1280)
		l := newLoop(e)
		e.Update(diff)
		l.turn()
		if e.peers.len() != 100_001 {
			b.Fatal(e.peers.len())
		}
	}
}

// BenchmarkParkAndDrain parks one packet and seals it: one allocation is allowed
// (WG-92).
func BenchmarkParkAndDrain(b *testing.B) {
	e, p := laneEngine(b, 1280)
	kp := installSealing(e, p, laneKey, 1)
	s, l := e.sessionOf(p), newLoop(e)
	pkts := []packet.Outbound{{Head: enginePacket("a", string(make([]byte, 1000)))}}
	b.ReportAllocs()
	for b.Loop() {
		s.current.Store(nil)
		s.park(pkts, 1)
		s.current.Store(kp)
		l.drain(s)
	}
}

// BenchmarkErase erases a session with a keypair and makes it anew.
func BenchmarkErase(b *testing.B) {
	e, p := laneEngine(b, 1280)
	l := newLoop(e)
	b.ReportAllocs()
	for b.Loop() {
		s := e.sessionOf(p)
		keys := transportKeys{}
		l.setCurrent(s, l.newKeypair(s, &keys, e.indices.choose(), 1, false))
		p.session.Store(nil)
		l.erase(s)
	}
}

// BenchmarkSealUnderFlood: doc/protocol/wireguard.md section 10.1 row 11. A batch
// of 48 datagrams is sealed while the handshake ring is kept full of messages,
// nine in ten with a wrong MAC1.
func BenchmarkSealUnderFlood(b *testing.B) {
	for _, flooded := range []bool{false, true} {
		b.Run(map[bool]string{false: "quiet", true: "flooded"}[flooded], func(b *testing.B) {
			d, from := newDeskWorker(b)
			good := d.made(b, from)
			bad := append(good[:100:100], make([]byte, 48)...)
			ctx, cancel := context.WithCancel(b.Context())
			var serving sync.WaitGroup
			serving.Go(func() {
				if err := d.e.Serve(ctx); ctx.Err() == nil {
					b.Error(err)
				}
			})
			if flooded {
				serving.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if i%10 == 0 {
							d.e.Handshake(engineUDP("192.0.2.1:1"), good)
						} else {
							d.e.Handshake(engineUDP("192.0.2.1:1"), bad)
						}
						if i%100 == 0 {
							runtime.Gosched()
						}
					}
				})
			}
			p := d.e.Peer(d.peer)
			kp := installSealing(d.e, p, laneKey, 1)
			kp.initiator = false
			kp.born = d.e.Now()
			sealer := d.e.NewSealer(func(*Peer, []packet.Burst) {})
			pkts := make([]packet.Outbound, 48)
			for i := range pkts {
				pkts[i].Head = enginePacket("a", string(make([]byte, 1200)))
			}
			b.SetBytes(48 * 1220)
			for b.Loop() {
				sealer.Seal(p, pkts, 0, d.e.Now())
			}
			cancel()
			serving.Wait()
		})
	}
}
