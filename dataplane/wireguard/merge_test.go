package wireguard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// separate cuts what a Sink got into the packets that were merged, with the
// independent segmenter, and forgets what merging does not keep.
func separate(t testing.TB, got []delivered) (pkts [][]byte) {
	t.Helper()
	for _, d := range got {
		if d.m.Len != len(d.pkt) || innerLength(d.pkt, len(d.pkt)) != len(d.pkt) {
			t.Fatalf("%+v holds a packet of %d bytes", d.m, innerLength(d.pkt, len(d.pkt)))
		}
		if d.m.Count == 1 {
			if d.m != (packet.Merged{Len: d.m.Len, Count: 1}) {
				t.Fatalf("%+v for a packet by itself", d.m)
			}
			pkts = append(pkts, bytes.Clone(d.pkt))
			continue
		}
		if start, end := tcpHeaders(d.pkt); end != d.m.HeaderLen || d.pkt[0]>>4 == 4 && slowSum(d.pkt[:start]) != 0xffff {
			t.Fatalf("%+v: headers end at %d, or the IPv4 checksum is wrong", d.m, end)
		}
		cut := cutSlowly(d.pkt, d.m.Segment)
		if len(cut) != d.m.Count {
			t.Fatalf("%+v cuts into %d", d.m, len(cut))
		}
		pkts = append(pkts, cut...)
	}
	return forget(pkts)
}

// checkDelivery opens packets in one read and checks that the same arrive, in
// deliveries of the counts given.
func checkDelivery(t *testing.T, l *lane, pkts [][]byte, counts ...int) {
	t.Helper()
	var sent, want [][]byte
	for _, p := range pkts {
		sent = append(sent, l.sealRaw(l.out.seal.counter.Add(1), pad(p)))
		want = append(want, bytes.Clone(p))
	}
	got := l.open(sent...)
	var n []int
	for _, d := range got {
		n = append(n, d.m.Count)
	}
	if !slices.Equal(n, counts) {
		t.Errorf("deliveries of %v packets, want %v", n, counts)
	}
	samePackets(t, separate(t, got), forget(want))
}

// pad appends zeros to a multiple of 16 bytes.
func pad(p []byte) []byte { return append(bytes.Clone(p), make([]byte, -len(p)&15)...) }

// TestMergeConditions: WG-67, one condition after the other, and WG section 10.1
// row 16: whatever a merged packet could hide keeps a packet apart.
func TestMergeConditions(t *testing.T) {
	type edit = func(*segment)
	apart := map[string]edit{
		"TOS":                func(s *segment) { s.tos = 4 },
		"ECN":                func(s *segment) { s.tos = 3 },
		"TTL":                func(s *segment) { s.ttl = 1 },
		"source port":        func(s *segment) { s.srcPort = 1 },
		"acknowledgment":     func(s *segment) { s.ack = 1 },
		"window":             func(s *segment) { s.window = 1 },
		"urgent pointer":     func(s *segment) { s.urgent = 1 },
		"option value":       func(s *segment) { s.options = timestamps(9) },
		"option length":      func(s *segment) { s.options = append(timestamps(1), 1, 1, 1, 1) },
		"no options":         func(s *segment) { s.options = nil },
		"SYN":                func(s *segment) { s.flags = packet.ACK | packet.SYN },
		"RST":                func(s *segment) { s.flags = packet.ACK | packet.RST },
		"URG":                func(s *segment) { s.flags = packet.ACK | packet.URG },
		"CWR":                func(s *segment) { s.flags = packet.ACK | packet.CWR },
		"ECE":                func(s *segment) { s.flags = packet.ACK | packet.ECE },
		"no ACK":             func(s *segment) { s.flags = packet.PSH },
		"gap":                func(s *segment) { s.seq++ },
		"overlap":            func(s *segment) { s.seq-- },
		"no payload":         func(s *segment) { s.payload = nil },
		"longer than first":  func(s *segment) { s.payload = filler(201) },
		"IPv4 fragment word": func(s *segment) { s.frag = 0x8000 },
		"IPv4 more to come":  func(s *segment) { s.frag = 0x2000 },
		"IPv4 options":       func(s *segment) { s.ipOpts = []byte{1, 1, 1, 0} },
		"IPv6 flow label":    func(s *segment) { s.label = 77 },
	}
	together := map[string]edit{
		"equal":               func(*segment) {},
		"IPv4 identification": func(s *segment) { s.id = 999 },
		"shorter":             func(s *segment) { s.payload = filler(1) },
		"PSH":                 func(s *segment) { s.flags = packet.ACK | packet.PSH },
		"FIN":                 func(s *segment) { s.flags = packet.ACK | packet.FIN },
	}
	run := func(name string, e edit, counts ...int) {
		for _, v6 := range []bool{false, true} {
			first := segment{v6: v6, seq: 1000, options: timestamps(1), payload: filler(200)}
			second := first
			second.seq += 200
			e(&second)
			a, b := first.build(), second.build()
			if v6 && bytes.Equal(second.build(), segment{v6: true, seq: 1200, options: timestamps(1), payload: filler(200)}.build()) && name != "equal" {
				continue // says something of IPv4
			}
			if !v6 && second.label != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/v6=%v", name, v6), func(t *testing.T) {
				for _, v := range []Verdict{Pass, PassFlow} {
					l := newLane(t, laneMTU)
					l.sink.verdict = v
					checkDelivery(t, l, [][]byte{a, b}, counts...)
				}
			})
		}
	}
	for name, e := range apart {
		run(name, e, 1, 1)
	}
	for name, e := range together {
		run(name, e, 2)
	}
}

// TestMergeHeaderBytes changes each byte of the second packet's headers in turn:
// what arrives is what was sent, apart or together.
func TestMergeHeaderBytes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := segment{v6: v6, options: timestamps(1), payload: filler(200)}
		pkts := trainOf(s, 3, 200)
		_, headers := tcpHeaders(pkts[0])
		for at := range headers {
			for _, x := range []byte{1, 0x10, 0x80, 0xff} {
				second := bytes.Clone(pkts[1])
				second[at] ^= x
				var want [][]byte
				for _, p := range [][]byte{pkts[0], second, pkts[2]} {
					var h packet.Header
					h.Parse(p)
					if n := innerLength(p, len(p)); n > 0 && h.Src.IsValid() {
						want = append(want, bytes.Clone(p[:n]))
					}
				}
				l := newLane(t, laneMTU)
				got := l.open(l.sealRaw(0, pkts[0]), l.sealRaw(1, second), l.sealRaw(2, pkts[2]))
				samePackets(t, separate(t, got), forget(want))
				if t.Failed() {
					t.Fatalf("v6=%v, byte %d, bits %#x", v6, at, x)
				}
			}
		}
	}
}

// trainOf returns n packets with payloads of the given length that follow each
// other.
func trainOf(s segment, n, payload int) (pkts [][]byte) {
	for i := range n {
		s.payload = filler(payload)
		for j := range s.payload {
			s.payload[j] += byte(i)
		}
		pkts = append(pkts, s.build())
		s.seq += uint32(payload)
	}
	return pkts
}

// TestMergeTrains: when a train leaves, and that order holds (WG-68, WG-73).
func TestMergeTrains(t *testing.T) {
	wrap := uint32(0xffffff00)
	a := segment{seq: wrap, options: timestamps(1)} // wraps
	other := segment{srcPort: 9, seq: 5, options: timestamps(1)}
	with := func(pkts [][]byte, at int, flags uint8) [][]byte {
		out := slices.Clone(pkts)
		out[at] = bytes.Clone(out[at])
		out[at][ipv4Header+tcpFlags] |= flags
		setSums(out[at])
		return out
	}
	mix := func(x, y [][]byte) (out [][]byte) {
		for i := range x {
			out = append(out, x[i], y[i])
		}
		return out
	}
	ack := segment{seq: wrap + 5000, options: timestamps(1)}.build()
	udp, err := packet.AppendIP(nil, laneSrc4, laneDst4, packet.UDP, 8)
	if err != nil {
		t.Fatal(err)
	}
	udp = append(udp, 0, 1, 0, 2, 0, 8, 0, 0)
	long := trainOf(a, 10, 1000)
	for _, tt := range []struct {
		name   string
		pkts   [][]byte
		counts []int
	}{
		{"one", long[:1], []int{1}},
		{"48", trainOf(a, 48, 1208), []int{48}},
		{"64 at most", trainOf(a, 70, 100), []int{64, 6}},
		{"65535 bytes at most", trainOf(a, 60, 1300), []int{50, 10}},
		{"large packets", trainOf(a, 4, 20000), []int{3, 1}},
		{"largest packets", trainOf(segment{}, 2, 65400-40), []int{1, 1}},
		{"PSH ends", with(long, 4, packet.PSH), []int{5, 5}},
		{"FIN ends", with(long, 4, packet.FIN), []int{5, 5}},
		{"PSH on the first", with(long, 0, packet.PSH), []int{1, 9}},
		{"short one ends", append(slices.Clone(long[:4]), trainOf(segment{seq: wrap + 4000, options: timestamps(1)}, 6, 999)...), []int{5, 5}},
		{"same flow, does not follow", append(slices.Clone(long[:5]), long[7:]...), []int{5, 3}},
		{"pure ACK between", slices.Insert(slices.Clone(long), 5, ack), []int{5, 1, 5}},
		{"UDP between", slices.Insert(slices.Clone(long), 5, udp), []int{5, 1, 5}},
		{"other flow after", append(slices.Clone(long), trainOf(other, 10, 1000)...), []int{10, 10}},
		{"flows in turn", mix(long[:3], trainOf(other, 3, 1000)), []int{1, 1, 1, 1, 1, 1}},
		{"payload shorter than the headers", trainOf(a, 20, 10), []int{20}},
		{"payload of a byte", trainOf(a, 20, 1), []int{20}},
		{"payload as long as the headers", trainOf(a, 20, 52), []int{20}},
		{"small, then none", trainOf(a, 2, 10), []int{2}},
		{"IPv4 options", trainOf(segment{ipOpts: []byte{1, 1, 1, 0}}, 3, 100), []int{1, 1, 1}},
		{"without DF", trainOf(segment{frag: 0x8000}, 3, 100), []int{3}},
		{"UDP only", [][]byte{udp, udp, udp}, []int{1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLane(t, laneMTU)
			checkDelivery(t, l, tt.pkts, tt.counts...)
			if l.sink.flushes != 1 {
				t.Errorf("%d flushes, want 1", l.sink.flushes)
			}
		})
	}
}

// TestMergePeers: packets of two peers never share a train, whatever their
// headers.
func TestMergePeers(t *testing.T) {
	l := newLane(t, laneMTU)
	_, other := laneEngine(t, laneMTU)
	installOpening(l.to, other, laneKey, 99)
	l.sink.owner = nil
	pkts := trainOf(segment{}, 2, 500)
	a, b := l.sealRaw(0, pkts[0]), l.sealRaw(1, pkts[1])
	binary.LittleEndian.PutUint32(b[4:], 99)
	if got := l.open(a, b); len(got) != 1 || got[0].m.Count != 1 || dropped(l.to, dropSource) != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestMergeSurvivesBadDatagrams: WG-66, WG section 10.1 row 14. Each datagram of
// a train in turn is forged, replayed, a keepalive, no IP packet, of another's
// address, or refused; the others arrive untouched.
func TestMergeSurvivesBadDatagrams(t *testing.T) {
	for _, payload := range []int{10, 1208} {
		pkts := trainOf(segment{options: timestamps(1)}, 12, payload)
		for name, spoil := range map[string]func(l *lane, i int, d []byte) []byte{
			"tag": func(_ *lane, _ int, d []byte) []byte { d[len(d)-1] ^= 1; return d },
			"first byte": func(_ *lane, _ int, d []byte) []byte {
				d[transportHeader] ^= 1
				return d
			},
			"replay":    func(l *lane, i int, _ []byte) []byte { return l.sealRaw(100, pkts[i]) },
			"keepalive": func(l *lane, i int, _ []byte) []byte { return l.sealRaw(uint64(i), nil) },
			"no IP":     func(l *lane, i int, _ []byte) []byte { return l.sealRaw(uint64(i), bytes.Repeat([]byte{0xff}, 64)) },
			"source": func(l *lane, i int, _ []byte) []byte {
				p := bytes.Clone(pkts[i])
				copy(p[ipv4Src:], []byte{1, 1, 1, 1})
				return l.sealRaw(uint64(i), p)
			},
			"verdict": func(l *lane, i int, _ []byte) []byte {
				p := segment{srcPort: 99, payload: filler(payload)}.build()
				return l.sealRaw(uint64(i), p)
			},
		} {
			for i := range pkts {
				l := newLane(t, laneMTU)
				l.sink.judge = func(h *packet.Header, _ []byte) Verdict {
					switch {
					case h.Src.Addr() != laneSrc4:
						t.Error("the Sink was asked about another's address")
					case h.Src.Port() == 5201+99:
						return Drop
					}
					return PassFlow
				}
				l.sink.owner = nil
				if name == "source" {
					l.sink.owner = ownerOf(l)
				}
				l.open(l.sealRaw(100, nil))
				var sent, want [][]byte
				for j, p := range pkts {
					d := l.sealRaw(uint64(j), pad(p))
					if i == j {
						d = spoil(l, j, d)
					} else {
						want = append(want, bytes.Clone(p))
					}
					sent = append(sent, d)
				}
				samePackets(t, separate(t, l.open(sent...)), forget(want))
				if t.Failed() {
					t.Fatalf("%s of datagram %d, payload %d", name, i, payload)
				}
			}
		}
	}
}

// TestMergeReservations: WG-72. Memory of the Sink is asked for in the size of
// what is delivered, and larger only for what may follow a train of several.
func TestMergeReservations(t *testing.T) {
	long := trainOf(segment{options: timestamps(1)}, 48, 1208)
	other := trainOf(segment{srcPort: 4, options: timestamps(1)}, 48, 1208)
	merged := 52 + 48*1208
	for _, tt := range []struct {
		name  string
		pkts  [][]byte
		sizes []int
	}{
		{"one", long[:1], []int{1260}},
		{"two", long[:2], []int{52 + 2*1208}},
		{"a read of 48", long, []int{merged + 46*4}},
		{"flows in turn", [][]byte{long[0], other[0], long[1], other[1]}, []int{1260, 1260, 1260, 1260}},
		{"small ones", trainOf(segment{}, 10, 101), []int{40 + 10*101}},
		{"broken off", append(slices.Clone(long[:9]), other[0]), []int{52 + 2*1208 + 8*1212, 1260}},
	} {
		l := newLane(t, laneMTU)
		var sent [][]byte
		for i, p := range tt.pkts {
			sent = append(sent, l.sealRaw(uint64(i), pad(p)))
		}
		l.open(sent...)
		if !slices.Equal(l.sink.sizes, tt.sizes) {
			t.Errorf("%s: reserved %v, want %v", tt.name, l.sink.sizes, tt.sizes)
		}
	}
}

// ownerOf says that all but 1.1.1.1 belong to the sender.
func ownerOf(l *lane) func(netip.Addr) *Peer {
	return func(a netip.Addr) *Peer {
		if a == netip.AddrFrom4([4]byte{1, 1, 1, 1}) {
			return nil
		}
		return l.sender
	}
}
