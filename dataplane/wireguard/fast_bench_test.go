package wireguard

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// A drain is a Sink that takes all and keeps nothing.
type drain struct {
	peer    *Peer
	mem     [1 << 16]byte
	packets int
}

func (d *drain) Owner(netip.Addr) *Peer                        { return d.peer }
func (d *drain) Verdict(*Peer, *packet.Header, []byte) Verdict { return PassFlow }
func (d *drain) Reserve(n int) []byte                          { return d.mem[:n] }
func (d *drain) Commit(_ *Peer, m packet.Merged)               { d.packets += m.Count }
func (d *drain) Flush()                                        {}

// inner is the length of the packets of benchmarks: a full one at the usual MTU.
const benchInner = 1280

// sealCases are what benchmarks and allocation tests seal: n datagrams.
func sealCases() map[int][]packet.Outbound {
	_, headers := tcpHeaders(segment{}.build())
	super := func(n int) []packet.Outbound {
		pkt := segment{payload: filler(n * (benchInner - headers))}.build()
		return []packet.Outbound{*scatter(pkt, benchInner-headers, headers, 8192, 8192, 8192)}
	}
	return map[int][]packet.Outbound{1: super(1), 16: super(16), 49: super(49)}
}

// sealOnce returns a function that seals pkts once.
func sealOnce(t testing.TB, pkts []packet.Outbound) func() {
	l := newLane(t, benchInner)
	s := l.from.NewSealer(func(*Peer, []packet.Burst) {})
	now := l.from.Now()
	return func() {
		if sealed, _, _ := s.Seal(l.peer, pkts, 0, now); sealed != len(pkts) {
			t.Fatal("not sealed")
		}
	}
}

// An openCase is one read of datagrams.
type openCase struct {
	name  string
	flows int
	n     int
}

var openCases = []openCase{{"1", 1, 1}, {"16", 1, 16}, {"48", 1, 48}, {"48 of alternating flows", 2, 48}}

// openOnce returns a function that opens the read of a case, as often as wanted:
// the replay window is emptied before each.
func openOnce(t testing.TB, c openCase) func() {
	l := newLane(t, benchInner)
	var read []byte
	seq := make([]uint32, c.flows)
	for i := range c.n {
		f := i % c.flows
		s := segment{srcPort: uint16(f), seq: seq[f], payload: filler(benchInner - 40)}
		seq[f] += uint32(len(s.payload))
		read = append(read, l.sealRaw(uint64(i), s.build())...)
	}
	d := &drain{peer: l.sender}
	o := l.to.NewOpener(d)
	now := l.to.Now()
	return func() {
		l.out.open.recv.replay.Reset()
		d.packets = 0
		o.Open(l.src, read, len(read)/c.n, 0, now)
		if o.Flush(); d.packets != c.n {
			t.Fatalf("%d packets, want %d", d.packets, c.n)
		}
	}
}

// TestFastPathsDoNotAllocate: WG-82, WG-92.
func TestFastPathsDoNotAllocate(t *testing.T) {
	check := func(name string, f func()) {
		f() // sets deadlines, reports the source
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	for n, pkts := range sealCases() {
		check(fmt.Sprint("seal ", n), sealOnce(t, pkts))
	}
	small := make([]packet.Outbound, 32)
	for i := range small {
		small[i].Head = segment{payload: filler(i % 5)}.build()
	}
	check("seal 32 small", sealOnce(t, small))
	for _, c := range openCases {
		check("open "+c.name, openOnce(t, c))
	}
}

// report gives the time for each datagram of an iteration.
func report(b *testing.B, datagrams int) {
	b.SetBytes(int64(datagrams * benchInner))
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*datagrams), "ns/datagram")
	b.ReportAllocs()
}

func BenchmarkSeal(b *testing.B) {
	cases := sealCases()
	for _, n := range []int{1, 16, 49} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := sealOnce(b, cases[n])
			for b.Loop() {
				f()
			}
			report(b, n)
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, c := range openCases {
		b.Run(c.name, func(b *testing.B) {
			f := openOnce(b, c)
			for b.Loop() {
				f()
			}
			report(b, c.n)
		})
	}
}

// BenchmarkAEAD is the cipher alone over as much memory as 48 datagrams take:
// what Seal and Open are measured against.
func BenchmarkAEAD(b *testing.B) {
	const n, stride = 48, benchInner + keepaliveSize
	a, nonce := mustAEAD(laneKey), new([12]byte)
	arena, out := make([]byte, n*stride), make([]byte, n*benchInner)
	sealAll := func() {
		for i := range n {
			p := arena[i*stride:][:benchInner]
			a.Seal(p[:0], nonce[:], p, nil)
		}
	}
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			sealAll()
		}
		report(b, n)
	})
	b.Run("open", func(b *testing.B) {
		copy(arena, bytes.Repeat([]byte{1}, len(arena)))
		sealAll()
		for b.Loop() {
			for i := range n {
				p := out[i*benchInner:]
				if _, err := a.Open(p[:0:benchInner], nonce[:], arena[i*stride:][:benchInner+tagSize], nil); err != nil {
					b.Fatal(err)
				}
			}
		}
		report(b, n)
	})
}
