package wireguard

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

func TestOpenVectors(t *testing.T) {
	for _, v := range transportVectors {
		l := newLane(t, laneMTU)
		installOpening(l.to, l.sender, mustHex(t, v.key), v.index)
		got := l.open(mustHex(t, v.message))
		if v.inner == "" {
			if len(got) != 0 {
				t.Errorf("counter %d: a keepalive was delivered", v.counter)
			}
			continue
		}
		if len(got) != 1 || !bytes.Equal(got[0].pkt, mustHex(t, v.inner)) || got[0].peer != l.sender {
			t.Errorf("counter %d: got %+v, want %s", v.counter, got, v.inner)
		}
	}
}

// TestOpenReplayModel: WG section 10.1 row 1. Duplicates and reordering within
// and beyond the window of 8128, against a set.
func TestOpenReplayModel(t *testing.T) {
	const window = 8128 // WG-29
	l := newLane(t, laneMTU)
	rng := rand.New(rand.NewPCG(1, 2))
	pkt := segment{}.build()
	seen, greatest, rejected := map[uint64]bool{}, uint64(0), 0
	for i := range 40_000 {
		counter := greatest + 1
		switch rng.IntN(10) {
		case 0, 1, 2: // a duplicate, or one that was left out
			counter = greatest - min(greatest, rng.Uint64N(300))
		case 3: // about the far edge
			counter = greatest - min(greatest, window-20+rng.Uint64N(40))
		case 4:
			counter = greatest + rng.Uint64N(100)
		case 5:
			if i%50 == 0 {
				counter = greatest + rng.Uint64N(3*window)
			}
		}
		want := !seen[counter] && greatest-min(greatest, counter) <= window
		got := len(l.open(l.sealRaw(counter, pkt))) == 1
		if got != want {
			t.Fatalf("packet %d: counter %d of %d accepted = %v, want %v", i, counter, greatest, got, want)
		}
		if !want {
			rejected++
		}
		seen[counter], greatest = true, max(greatest, counter)
	}
	if dropped(l.to, dropReplay) != rejected || rejected < 1000 {
		t.Errorf("%d replays counted, want %d", dropped(l.to, dropReplay), rejected)
	}
}

// TestOpenReplayAcrossKeypairs: each keypair has its own window.
func TestOpenReplayAcrossKeypairs(t *testing.T) {
	l := newLane(t, laneMTU)
	installOpening(l.to, l.sender, laneKey, 99)
	a := l.sealRaw(5, segment{}.build())
	b := bytes.Clone(a)
	b[4], b[5], b[6], b[7] = 99, 0, 0, 0
	if got := l.open(a, b, a, b); len(got) != 2 {
		t.Errorf("%d packets, want one of each keypair", len(got))
	}
}

// TestOpenMalformed: WG section 10.1 row 17, WG-03, WG-28. Nothing of these is
// delivered, and each is counted under its reason.
func TestOpenMalformed(t *testing.T) {
	l := newLane(t, laneMTU)
	good := l.sealRaw(0, segment{payload: filler(40)}.build())
	for n := range good {
		before := dropped(l.to, dropMalformed) + dropped(l.to, dropTag)
		if got := l.open(good[:n:n]); len(got) != 0 {
			t.Errorf("first %d bytes of a datagram delivered %+v", n, got)
		}
		if n > 0 && dropped(l.to, dropMalformed)+dropped(l.to, dropTag) != before+1 {
			t.Errorf("first %d bytes of a datagram were not counted", n)
		}
	}
	for i := range 4 { // reserved bytes belong to the type
		d := bytes.Clone(good)
		d[i] ^= 0x10
		if got := l.open(d); len(got) != 0 {
			t.Errorf("type %x was accepted", d[:4])
		}
	}
	unknown := bytes.Clone(good)
	unknown[4]++
	if got := l.open(unknown); len(got) != 0 || dropped(l.to, dropUnknownIndex) != 1 {
		t.Error("an unknown index was accepted or not counted")
	}
	before := dropped(l.to, dropMalformed)
	if got := l.open(bytes.Repeat(good, 1000)); len(got) != 0 || dropped(l.to, dropMalformed) != before+1 || len(l.opener.loose) != openerBuffer {
		t.Error("a datagram longer than UDP can carry was looked at")
	}
	if got := l.open(good); len(got) != 1 {
		t.Error("the good datagram was lost to a bad one")
	}

	counter := uint64(1)
	for name, plain := range map[string][]byte{
		"no version":            {0, 0, 0, 0},
		"version 5":             append([]byte{0x50}, make([]byte, 63)...),
		"IPv4 too short":        {0x45, 0, 0, 19, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8},
		"IPv4 too long":         {0x45, 0, 0, 21, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8},
		"IPv4 header too long":  {0x4f, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8},
		"IPv4 header too short": {0x44, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8},
		"IPv6 too long":         append([]byte{0x60, 0, 0, 0, 0xff, 0xff, 6, 64}, make([]byte, 40)...),
		"IPv6 header cut":       append([]byte{0x60, 0, 0, 0, 0, 0, 6, 64}, make([]byte, 31)...),
	} {
		before := dropped(l.to, dropNotIP)
		if got := l.open(l.sealRaw(counter, plain)); len(got) != 0 || dropped(l.to, dropNotIP) != before+1 {
			t.Errorf("%s: got %+v, counted %d", name, got, dropped(l.to, dropNotIP)-before)
		}
		counter++
	}
	inner := segment{v6: true, payload: filler(30)}.build()
	for n := 1; n < len(inner); n++ {
		if got := l.open(l.sealRaw(counter, inner[:n])); len(got) != 0 {
			t.Errorf("first %d bytes of a packet were delivered", n)
		}
		counter++
	}
	if got := l.open(l.sealRaw(counter, append(inner, 1, 2, 3))); len(got) != 1 || !bytes.Equal(got[0].pkt, inner) {
		t.Error("surplus behind a packet was not cut off")
	}
}

// TestOpenExpired: WG-31. A keypair opens until it is 180 s old.
func TestOpenExpired(t *testing.T) {
	l := newLane(t, laneMTU)
	for i, tt := range []struct {
		age  Tick
		want int
	}{{180e9, 1}, {180e9 + 1, 0}} {
		l.opener.Open(l.src, l.sealRaw(uint64(i), segment{}.build()), 0, 0, l.out.open.born+tt.age)
		if got := l.flush(); len(got) != tt.want {
			t.Errorf("age %d: %d packets, want %d", tt.age, len(got), tt.want)
		}
	}
	if dropped(l.to, dropKeyExpired) != 1 {
		t.Error("a packet under an old key was not counted")
	}
}

// TestOpenSource: WG-54, WG section 10.1 row 15. A peer cannot send under an
// address that another owns, whether or not the other has a session; that an
// exit node owns everything else does not help it.
func TestOpenSource(t *testing.T) {
	l := newLane(t, laneMTU)
	_, other := laneEngine(t, laneMTU)
	mine := netip.MustParsePrefix("0.0.0.0/0") // l.sender is an exit node
	theirs := map[netip.Addr]bool{laneDst4: true, laneDst6: true}
	for i := range 200 {
		theirs[netip.AddrFrom4([4]byte{100, 77, byte(i), 1})] = true
	}
	l.sink.owner = func(a netip.Addr) *Peer {
		switch {
		case theirs[a]:
			return other
		case mine.Contains(a), a == laneSrc6:
			return l.sender
		}
		return nil
	}
	counter, want := uint64(0), 0
	send := func(src netip.Addr) []delivered {
		pkt := segment{v6: src.Is6(), payload: filler(10)}.build()
		if src.Is6() {
			copy(pkt[8:], src.AsSlice())
		} else {
			copy(pkt[12:], src.AsSlice())
		}
		counter++
		return l.open(l.sealRaw(counter, pkt))
	}
	for a := range theirs {
		if got := send(a); len(got) != 0 {
			t.Errorf("a packet from %v, another's address, was delivered", a)
		}
		want++
	}
	for _, a := range []string{"fd7a::9", "::", "::ffff:100.64.0.1"} {
		if got := send(netip.MustParseAddr(a)); len(got) != 0 {
			t.Errorf("a packet from %v, nobody's address, was delivered", a)
		}
		want++
	}
	if n := dropped(l.to, dropSource); n != want {
		t.Errorf("%d counted, want %d", n, want)
	}
	for _, a := range []string{"8.8.8.8", "100.64.0.1", "fd7a:115c:a1e0::1"} {
		if got := send(netip.MustParseAddr(a)); len(got) != 1 {
			t.Errorf("a packet from %v, the sender's own address, was dropped", a)
		}
	}

	// Within a train: the second packet has the right ports and sequence number
	// but another's address.
	p := segment{payload: filler(100)}
	q := segment{payload: filler(100), seq: 100}.build()
	copy(q[12:], laneDst4.AsSlice())
	if got := l.open(l.sealRaw(1000, p.build()), l.sealRaw(1001, q)); len(got) != 1 || !bytes.Equal(got[0].pkt, p.build()) {
		t.Errorf("a forged source within a train: %d packets", len(got))
	}
}

// TestOpenVerdicts: WG-61. Who is asked again, and who is not.
func TestOpenVerdicts(t *testing.T) {
	icmp, err := packet.AppendIP(nil, laneSrc4, laneDst4, packet.ICMPv4, 8)
	if err != nil {
		t.Fatal(err)
	}
	icmp = append(icmp, 8, 0, 0, 0, 0, 0, 0, 0)
	udp, err := packet.AppendIP(nil, laneSrc4, laneDst4, packet.UDP, 8)
	if err != nil {
		t.Fatal(err)
	}
	udp = append(udp, 0, 1, 0, 2, 0, 8, 0, 0)
	tcp := func(seq uint32, flags uint8) []byte {
		return segment{seq: seq, flags: flags, payload: filler(100)}.build()
	}
	later := segment{frag: 0x2000 | 100, payload: filler(100)}.build()
	for _, tt := range []struct {
		name    string
		verdict Verdict
		pkts    [][]byte
		asked   int
		passed  int // packets, merged ones counted
	}{
		{"a flow is asked for once", PassFlow, [][]byte{tcp(0, 0), tcp(100, 0), tcp(200, 0), tcp(900, 0)}, 1, 4},
		{"each packet with Pass", Pass, [][]byte{tcp(0, 0), tcp(100, 0), tcp(200, 0)}, 3, 3},
		{"each packet with Drop", Drop, [][]byte{tcp(0, 0), tcp(100, 0), tcp(200, 0)}, 3, 0},
		{"SYN always", PassFlow, [][]byte{tcp(0, 0), tcp(100, packet.SYN), tcp(100, packet.SYN|packet.ACK)}, 3, 3},
		{"RST always", PassFlow, [][]byte{tcp(0, 0), tcp(100, packet.RST), tcp(100, packet.RST|packet.ACK)}, 3, 3},
		{"ICMP always", PassFlow, [][]byte{icmp, icmp, icmp}, 3, 3},
		{"UDP once", PassFlow, [][]byte{udp, udp, udp}, 1, 3},
		{"fragments always", PassFlow, [][]byte{later, later}, 2, 2},
		{"another flow", PassFlow, [][]byte{tcp(0, 0), udp, tcp(100, 0)}, 3, 3},
	} {
		l := newLane(t, laneMTU)
		l.sink.verdict = tt.verdict
		var sent [][]byte
		for i, p := range tt.pkts {
			sent = append(sent, l.sealRaw(uint64(i), p))
		}
		passed := 0
		for _, d := range l.open(sent...) {
			passed += d.m.Count
		}
		if l.sink.asked != tt.asked || passed != tt.passed {
			t.Errorf("%s: asked %d times and passed %d, want %d and %d", tt.name, l.sink.asked, passed, tt.asked, tt.passed)
		}
		asked := l.sink.asked
		if l.open(l.sealRaw(100, tt.pkts[0])); l.sink.asked != asked+1 {
			t.Errorf("%s: the verdict outlived Flush", tt.name)
		}
	}
}

// TestOpenRewrites: a Sink that gives each packet another destination gets
// trains of the packets as it made them (WG-55).
func TestOpenRewrites(t *testing.T) {
	native := netip.MustParseAddr("100.64.0.77")
	l := newLane(t, laneMTU)
	l.sink.judge = func(h *packet.Header, pkt []byte) Verdict {
		if !h.RewriteDst(pkt, native) {
			t.Error("not rewritten")
		}
		return Pass
	}
	super := segment{payload: filler(6000)}.build()
	got := l.openRead(l.sealOut(0, *scatter(super, 1208, 40))...)
	copy(super[16:], native.AsSlice())
	if len(got) != 1 || got[0].m.Count != 5 {
		t.Fatalf("%d packets, want a train of 5", len(got))
	}
	samePackets(t, forget(cutSlowly(got[0].pkt, got[0].m.Segment)), forget(cutSlowly(setSums(super), 1208)))
}

// forget clears what merging does not keep: IPv4 identification and checksum,
// TCP checksum.
func forget(pkts [][]byte) [][]byte {
	for _, b := range pkts {
		if len(b) >= 20 && b[0]>>4 == 4 {
			clear(b[4:6])
			clear(b[10:12])
		}
		if start, _ := tcpHeaders(b); start > 0 {
			clear(b[start+16 : start+18])
		}
	}
	return pkts
}

// TestOpenReports: WG-57. Bytes and source are those of what was authentic and
// new, whatever the Sink made of it; a replay says nothing of where a peer is.
func TestOpenReports(t *testing.T) {
	l := newLane(t, laneMTU)
	l.sink.verdict = Drop
	pkt := segment{payload: filler(100)}.build()
	a, b := l.sealRaw(0, pkt), l.sealRaw(1, pkt)
	b[20] ^= 1
	l.openRead(a, b, a)
	if got := l.sender.RxBytes(); got != uint64(len(a)) {
		t.Errorf("%d bytes received, want %d", got, len(a))
	}
	real := l.src
	l.src = &Source{Addr: netip.MustParseAddrPort("203.0.113.66:1")}
	l.open(a, b)
	if heard := l.to.config.Events.(*laneEvents).heard; len(heard) != 1 || heard[0] != real {
		t.Errorf("heard from %v, want %v alone", heard, real)
	}
	sent := l.seal(pkt, pkt)
	if got := l.peer.TxBytes(); got != uint64(2*len(sent[0])) {
		t.Errorf("%d bytes sent, want %d", got, 2*len(sent[0]))
	}
}

// TestOpenTwoWays: the same datagrams come on two sockets at once (PATH-33);
// each packet is delivered once.
func TestOpenTwoWays(t *testing.T) {
	const n = 2000
	l := newLane(t, laneMTU)
	var sent [][]byte
	for i := range n {
		pkt := segment{seq: uint32(i) * 10, payload: filler(10)}.build()
		sent = append(sent, l.sealRaw(uint64(i), pkt))
	}
	now := l.to.Now()
	var drains [2]drain
	var wg sync.WaitGroup
	for i := range drains {
		drains[i].peer = l.sender
		wg.Go(func() {
			o := l.to.NewOpener(&drains[i])
			for _, d := range sent {
				o.Open(l.src, d, 0, 0, now)
			}
			o.Flush()
		})
	}
	wg.Wait()
	if got := drains[0].packets + drains[1].packets; got != n || dropped(l.to, dropReplay) != n {
		t.Errorf("%d packets and %d replays, want %d of both", got, dropped(l.to, dropReplay), n)
	}
}

// TestOpenSurvivesPanic: a Sink's panic leaves the keypair usable by the Opener
// of the next life of its goroutine.
func TestOpenSurvivesPanic(t *testing.T) {
	l := newLane(t, laneMTU)
	pkt := segment{payload: filler(100)}.build()
	l.sink.judge = func(*packet.Header, []byte) Verdict { panic("sink") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		l.open(l.sealRaw(0, pkt))
	}()
	l.sink.judge = nil
	l.opener = l.to.NewOpener(l.sink)
	if got := l.open(l.sealRaw(1, pkt)); len(got) != 1 {
		t.Error("the keypair is of no use after a panic")
	}
}

// TestOpenRuns: datagrams of several keypairs, and others among them, in one
// read.
func TestOpenRuns(t *testing.T) {
	l := newLane(t, laneMTU)
	installOpening(l.to, l.sender, laneKey, 99)
	var read [][]byte
	for i := range 9 {
		d := l.sealRaw(uint64(i), segment{seq: uint32(i) * 100, payload: filler(100)}.build())
		if i%3 == 1 {
			binary.LittleEndian.PutUint32(d[4:], 99)
		}
		if i == 5 {
			d[0] = 7
		}
		read = append(read, d)
	}
	n := 0
	for _, d := range l.openRead(read...) {
		n += d.m.Count
	}
	if n != 8 || dropped(l.to, dropMalformed) != 1 {
		t.Errorf("%d packets and %d malformed, want 8 and 1", n, dropped(l.to, dropMalformed))
	}
}
