package wireguard

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// unseal opens a datagram by the book and returns counter and plaintext.
func unseal(t testing.TB, key, d []byte) (uint64, []byte) {
	t.Helper()
	plain, ok := tryUnseal(key, d)
	if !ok {
		t.Fatalf("datagram %x does not open", d)
	}
	return binary.LittleEndian.Uint64(d[8:]), plain
}

func tryUnseal(key, d []byte) (plain []byte, ok bool) {
	plain, err := mustAEAD(key).Open(nil, append(make([]byte, 4), d[8:16]...), d[16:], nil)
	return plain, err == nil
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Transport messages of doc/protocol/wireguard.md, Appendix A.
const (
	vectorT1 = "e07b709efbfd0361a08a9de658ceb3847d648c207ed71d4dbdfe248bef23a651"
	vectorT2 = "f76ba55a113d83abf16240859ca361a9017ae9fbac0b4aa43179112c40e0163f"

	vectorInner = "4500001c000000004011000064400001644000020000000000000000"
)

var transportVectors = []struct {
	key, inner, message string
	index               uint32
	counter             uint64
}{
	{vectorT1, "", "040000000d0c0b0a000000000000000069958abbebcb06f97a256144abed28f6", 0x0a0b0c0d, 0},
	{vectorT1, vectorInner, "040000000d0c0b0a01000000000000006e14f5e8369cd820c73f1fb733ca132fc5ae57726dcbb00f63ab67606ab92ff2a3c390317d38133a3ba484c91922268a", 0x0a0b0c0d, 1},
	{vectorT2, "", "040000000403020100000000010000002c5c45fb069e869e22d387d12280997d", 0x01020304, 1 << 32},
}

func TestSealVectors(t *testing.T) {
	for _, v := range transportVectors {
		l := newLane(t, laneMTU)
		kp := installSealing(l.from, l.peer, mustHex(t, v.key), v.index)
		kp.counter.Store(v.counter)
		if v.inner == "" {
			l.sealer.keepalive(l.peer, kp, 0)
		} else {
			l.seal(mustHex(t, v.inner))
		}
		if len(l.sent) != 1 || !bytes.Equal(l.sent[0], mustHex(t, v.message)) {
			t.Errorf("counter %d: sent %x, want %s", v.counter, l.sent, v.message)
		}
		if kp.counter.Load() != v.counter+1 {
			t.Errorf("counter %d became %d", v.counter, kp.counter.Load())
		}
	}
}

// TestSealPadding: WG-28 at every size around the MTU, and WG section 10.1 row
// 13: nothing that was in the arena before leaves in the padding.
func TestSealPadding(t *testing.T) {
	const mtu = 1270 // not a multiple of 16
	l := newLane(t, mtu)
	l.sealer.prepare()
	old := bytes.Repeat([]byte{pattern}, 4096)
	for n := 20; n <= 1420; n++ {
		copy(l.sealer.arena, old)
		pkt := make([]byte, n)
		pkt[0] = 0x45
		binary.BigEndian.PutUint16(pkt[2:], uint16(n))
		sent := l.seal(pkt)
		_, plain := unseal(t, laneKey, sent[0])
		want := min((n+15)/16*16, max(n, mtu))
		if len(plain) != want {
			t.Fatalf("%d bytes were padded to %d, want %d", n, len(plain), want)
		}
		if !bytes.Equal(plain[:n], pkt) || bytes.ContainsFunc(plain[n:], func(r rune) bool { return r != 0 }) {
			t.Fatalf("%d bytes became %x", n, plain)
		}
	}
}

// checkBursts checks that bursts hold exactly the datagrams given, in order,
// within the bounds of WG-63.
func checkBursts(t *testing.T, bursts []packet.Burst, room int) (datagrams int) {
	t.Helper()
	for _, b := range bursts {
		if b.Room != room || b.Count < 1 || b.Count > 64 || len(b.Buf) > 65507 {
			t.Fatalf("burst of %d with room %d in %d bytes", b.Count, b.Room, len(b.Buf))
		}
		for i := range b.Count {
			switch n := len(b.Datagram(i)); {
			case n != b.Size && i < b.Count-1, n > b.Size, n < 32:
				t.Fatalf("datagram %d of %d has %d bytes, want %d", i, b.Count, n, b.Size)
			}
			if at := i * (room + b.Size); !bytes.Equal(b.Buf[at:at+room], make([]byte, room)) {
				t.Fatal("room is not empty")
			}
		}
		datagrams += b.Count
	}
	return datagrams
}

// TestSealBursts: what makes a burst, and that all arrives in order under
// counters without a gap.
func TestSealBursts(t *testing.T) {
	super := func(payload, size int) packet.Outbound {
		pkt := segment{payload: filler(payload), options: timestamps(2)}.build()
		return *scatter(pkt, size, 52, 1000)
	}
	one := func(n int) packet.Outbound { return packet.Outbound{Head: segment{payload: filler(n)}.build()} }
	repeat := func(n int, o packet.Outbound) (all []packet.Outbound) {
		for range n {
			all = append(all, o)
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		room  int
		pkts  []packet.Outbound
		want  []int // datagrams of each burst
		sends int
	}{
		{"one", 0, repeat(1, one(0)), []int{1}, 1},
		{"longest super-packet", 0, repeat(1, super(49*1208, 1208)), []int{49}, 1},
		{"longest super-packet through a relay", 8, repeat(1, super(49*1208, 1208)), []int{49}, 1},
		{"at most 64", 0, repeat(65, one(0)), []int{64, 1}, 1},
		{"at most 65507 bytes", 0, repeat(60, one(1240)), []int{49, 11}, 1},
		{"a larger one begins anew", 0, []packet.Outbound{one(0), one(0), one(100), one(100)}, []int{2, 2}, 1},
		{"a smaller one ends", 0, []packet.Outbound{one(100), one(0), one(0)}, []int{2, 1}, 1},
		{"last piece ends", 0, []packet.Outbound{super(3000, 1208), one(0)}, []int{3, 1}, 1},
		{"a burst takes from the next super-packet", 0, repeat(2, super(48*1208, 1208)), []int{50, 46}, 1},
		{"the third waits for the arena", 0, repeat(3, super(48*1208+1, 1208)), []int{49, 49, 49}, 2},
		{"more pieces than the arena holds", 0, repeat(1, super(59000, 64)), nil, 2},
		{"more counters than one batch", 0, repeat(20, super(65000, 600)), nil, 20},
		{"more bursts than one send", 0, append(repeat(1, one(0)), alternate(one(0), one(64), 130)...), nil, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLane(t, laneMTU)
			l.sealer.prepare()
			copy(l.sealer.arena, bytes.Repeat([]byte{pattern}, arenaSize))
			sent := l.sealOut(tt.room, tt.pkts...)
			if n := checkBursts(t, l.burst, tt.room); n != len(sent) {
				t.Fatalf("%d datagrams, want %d", n, len(sent))
			}
			var counts []int
			for _, b := range l.burst {
				counts = append(counts, b.Count)
			}
			if tt.want != nil && !equalInts(counts, tt.want) {
				t.Errorf("bursts of %v, want %v", counts, tt.want)
			}
			if l.sends != tt.sends {
				t.Errorf("%d sends, want %d", l.sends, tt.sends)
			}
			var want [][]byte
			for i := range tt.pkts {
				o := &tt.pkts[i]
				pkt := bytes.Join(append([][]byte{o.Head}, o.Body...), nil)
				if o.Segment > 0 {
					want = append(want, cutSlowly(pkt, o.Segment)...)
				} else {
					want = append(want, pkt)
				}
			}
			var got [][]byte
			for i, d := range sent {
				counter, plain := unseal(t, laneKey, d)
				if counter != uint64(i) {
					t.Fatalf("datagram %d has counter %d", i, counter)
				}
				got = append(got, plain[:innerLength(plain, len(plain))])
			}
			samePackets(t, got, want)
		})
	}
}

// TestBatchOf: no batch takes more counters than the headroom of
// RejectAfterMessages is made for (WG-27).
func TestBatchOf(t *testing.T) {
	pkt := segment{payload: filler(65000)}.build()
	many := scatter(pkt, 130, 40) // 500 datagrams
	worst := scatter(pkt, 10, 40) // 6500, refused later
	for _, tt := range []struct {
		pkts         []packet.Outbound
		n, datagrams int
	}{
		{nil, 0, 0},
		{[]packet.Outbound{*many, *many, *many}, 2, 1000},
		{[]packet.Outbound{*worst, *many}, 1, maxReserve},
		{[]packet.Outbound{*many, *worst}, 1, 500},
		{make([]packet.Outbound, 2000), maxReserve, maxReserve},
	} {
		if n, datagrams := batchOf(tt.pkts); n != tt.n || datagrams != tt.datagrams {
			t.Errorf("%d packets: %d with %d datagrams, want %d with %d", len(tt.pkts), n, datagrams, tt.n, tt.datagrams)
		}
	}
}

func alternate(a, b packet.Outbound, n int) (all []packet.Outbound) {
	for i := range n {
		if i%2 == 0 {
			all = append(all, a)
		} else {
			all = append(all, b)
		}
	}
	return all
}

func equalInts(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestSealDrops: what cannot be sealed is counted and holds up nothing else.
func TestSealDrops(t *testing.T) {
	l := newLane(t, laneMTU)
	good := segment{payload: filler(100)}.build()
	long := make([]byte, 65535)
	long[0] = 0x45
	binary.BigEndian.PutUint16(long[2:], 65535)
	long4 := bytes.Clone(long[:65507-32])
	binary.BigEndian.PutUint16(long4[2:], 65507-32)
	pkts := []packet.Outbound{
		{Head: good}, {Head: good[:50]}, {Head: long}, {Head: good, Segment: 1 << 20}, {Head: long4},
		{Head: append(bytes.Clone(good[:9]), append([]byte{1}, good[10:]...)...), Partial: true},
		{Head: good},
	}
	sealed, parked, lost := l.sealer.Seal(l.peer, pkts, 0, 0)
	if sealed != 4 || parked != 0 || lost != 3 {
		t.Fatalf("Seal = %d, %d, %d, want 4, 0, 3", sealed, parked, lost)
	}
	if n := dropped(l.from, dropOutbound); n != lost {
		t.Errorf("%d drops were counted, want %d", n, lost)
	}
	seen := map[uint64]bool{}
	for _, d := range l.sent {
		counter, _ := unseal(t, laneKey, d)
		if seen[counter] {
			t.Errorf("counter %d was used twice", counter)
		}
		seen[counter] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d datagrams, want 4", len(seen))
	}
	if l.sealer.cut.pkt != nil || l.sealer.cut.body.more != nil {
		t.Error("the Sealer still holds memory of the stack")
	}
}

// TestSealCounterLimit: WG section 10.1 row 9. The last counter is one below
// RejectAfterMessages, and no range reaches beyond.
func TestSealCounterLimit(t *testing.T) {
	l := newLane(t, laneMTU)
	pkt := segment{}.build()
	l.out.seal.counter.Store(rejectAfterMessages - 3)
	l.seal(pkt, pkt, pkt)
	if counter, _ := unseal(t, laneKey, l.sent[2]); counter != rejectAfterMessages-1 {
		t.Errorf("last counter %d, want %d", counter, uint64(rejectAfterMessages-1))
	}
	if got := l.open(l.sent...); len(got) != 3 {
		t.Errorf("%d packets arrived, want 3", len(got))
	}
	l.sent = nil
	if sealed, _, _ := l.sealer.Seal(l.peer, []packet.Outbound{{Head: pkt}}, 0, 0); sealed != 0 || l.sent != nil {
		t.Errorf("%d packets were sealed with a counter beyond the limit", sealed)
	}
	if first, ok := l.out.seal.reserve(1); ok {
		t.Errorf("counter %d was given away", first)
	}
	if got := l.open(l.sealRaw(rejectAfterMessages, pkt)); len(got) != 0 || dropped(l.to, dropReplay) != 1 {
		t.Error("a packet with a counter beyond the limit was accepted")
	}
}

// TestSealCountersAreUnique: WG section 10.1 row 2. Eight goroutines seal a
// million packets under one key, and no counter occurs twice.
func TestSealCountersAreUnique(t *testing.T) {
	const workers, each, batch = 8, 125_000, 250
	l := newLane(t, laneMTU)
	seen := make([]atomic.Uint32, workers*each/32)
	var twice, wrong atomic.Int64
	note := func(_ *Peer, bursts []packet.Burst) {
		for _, b := range bursts {
			for i := range b.Count {
				counter := binary.LittleEndian.Uint64(b.Datagram(i)[8:])
				if counter >= workers*each {
					wrong.Add(1)
					continue
				}
				if bit := uint32(1) << (counter % 32); seen[counter/32].Or(bit)&bit != 0 {
					twice.Add(1)
				}
			}
		}
	}
	pkts := make([]packet.Outbound, batch)
	for i := range pkts {
		pkts[i].Head = []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2}
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			s := l.from.NewSealer(note)
			for range each / batch {
				if sealed, _, _ := s.Seal(l.peer, pkts, 0, 0); sealed != batch {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if twice.Load() > 0 || wrong.Load() > 0 {
		t.Errorf("%d counters occurred twice, %d out of range", twice.Load(), wrong.Load())
	}
	for i := range seen {
		if seen[i].Load() != 1<<32-1 {
			t.Fatalf("a counter near %d is missing", i*32)
		}
	}
}

// TestSealParks: WG-46. Without a key packets wait; those that come while others
// wait go behind them, also when a key is there; nothing overtakes.
func TestSealParks(t *testing.T) {
	l := newLane(t, laneMTU)
	ses := l.from.sessionOf(l.peer)
	kp := ses.current.Swap(nil)
	super := segment{seq: 1, payload: filler(3000)}.build()
	last := segment{seq: 9}.build()
	seal := func(o packet.Outbound, sealed, parked int) {
		t.Helper()
		if s, p, d := l.sealer.Seal(l.peer, []packet.Outbound{o}, 0, 0); s != sealed || p != parked || d != 0 {
			t.Fatalf("Seal = %d, %d, %d, want %d, %d, 0", s, p, d, sealed, parked)
		}
	}
	seal(*scatter(super, 1000, 40, 7), 0, 1)
	ses.current.Store(kp)
	seal(packet.Outbound{Head: segment{seq: 5}.build()}, 0, 1)
	ses.drain(func(pkts []packet.Outbound) {
		if n := l.sealer.sealNow(l.peer, kp, pkts, 0); n != 2 {
			t.Errorf("%d parked packets were sealed, want 2", n)
		}
	})
	seal(packet.Outbound{Head: last}, 1, 0)

	var got [][]byte
	for _, d := range l.sent {
		_, plain := unseal(t, laneKey, d)
		got = append(got, plain[:innerLength(plain, len(plain))])
	}
	samePackets(t, got, append(cutSlowly(super, 1000), segment{seq: 5}.build(), last))
}

// TestSealRemovedPeer: WG-50.
func TestSealRemovedPeer(t *testing.T) {
	l := newLane(t, laneMTU)
	l.peer.session.Store(gone)
	if s, p, d := l.sealer.Seal(l.peer, []packet.Outbound{{Head: segment{}.build()}}, 0, 0); s+p != 0 || d != 1 || l.sent != nil {
		t.Errorf("Seal = %d, %d, %d for a removed peer, want 0, 0, 1", s, p, d)
	}
}

// TestSealOldKey: WG section 10.1 row 10. Nothing leaves under a key that is 180
// s old.
func TestSealOldKey(t *testing.T) {
	l := newLane(t, laneMTU)
	pkts := []packet.Outbound{{Head: segment{}.build()}}
	limit := l.out.seal.born + Tick(rejectAfterTime)
	if s, _, _ := l.sealer.Seal(l.peer, pkts, 0, limit-1); s != 1 {
		t.Error("a key of almost 180 s was refused")
	}
	if s, p, _ := l.sealer.Seal(l.peer, pkts, 0, limit); s != 0 || p != 1 {
		t.Error("a key of 180 s was used")
	}
}
