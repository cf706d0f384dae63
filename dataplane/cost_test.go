package dataplane

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// A tap is an Underlay that gives what it is sent to a receiver at once, as a
// socket read would.
type tap struct {
	from transport.Endpoint
	to   transport.Receiver
}

func (t *tap) Send(_ transport.Endpoint, bursts []packet.Burst) error {
	for _, b := range bursts {
		t.to.Receive(t.from, b.Buf, b.Size, 0)
	}
	t.to.Flush()
	return nil
}

// A sinkhole is a Delivery that counts.
type sinkhole struct {
	mem            []byte
	packets, bytes int
}

func (s *sinkhole) Reserve(n int) []byte {
	if cap(s.mem) < n {
		s.mem = make([]byte, n)
	}
	return s.mem[:n]
}
func (s *sinkhole) Commit(m packet.Merged) { s.packets += max(m.Count, 1); s.bytes += m.Len }
func (s *sinkhole) Flush()                 {}

// loopback joins a's outbound loop to a receiver of b on the calling goroutine,
// over the session that both have.
func loopback(a, b *testNode) (*outbound, *sinkhole) {
	hole := new(sinkhole)
	newDelivery := b.d.config.NewDelivery
	b.d.config.NewDelivery = func() Delivery { return hole }
	r := b.d.NewReceiver()
	b.d.config.NewDelivery = newDelivery
	o := newOutbound(a.d, 0)
	o.sender = sender{d: &Dataplane{config: Config{Underlay: &tap{transport.Endpoint{Addr: a.udp}, r}}}}
	return o, hole
}

// superPacket returns n TCP segments of 1208 bytes as one packet, as a stack
// with segmentation offload hands it over.
func superPacket(n int) packet.Outbound {
	whole := tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.ACK, make([]byte, n*1208)...)
	return packet.Outbound{Head: whole[:40], Body: [][]byte{whole[40:]}, Segment: 1208, Partial: true}
}

// traffic are batches by name.
func traffic() map[string][]packet.Outbound {
	small := make([]packet.Outbound, 16)
	for i := range small {
		small[i] = packet.Outbound{Head: udpPacket("100.64.0.1:7000", fmt.Sprintf("100.64.0.2:%d", 2000+i), make([]byte, 100)...)}
	}
	return map[string][]packet.Outbound{
		"one UDP packet":    small[:1],
		"16 UDP flows":      small,
		"a super-packet":    {superPacket(47)},
		"small with ACK":    {{Head: tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.ACK)}, small[0]},
		"no owner, refused": {{Head: tcpPacket("100.64.0.1:4000", "224.0.0.1:80", packet.SYN)}},
	}
}

// established makes a session between a and b and leaves both quiet.
func established(a, b *testNode) {
	a.cable.put(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
	quiet()
	b.cable.put(udpPacket("100.64.0.2:1", "100.64.0.1:1"))
	quiet()
}

// TestPacketPathAllocatesNothing sends batches out of a and into b.
func TestPacketPathAllocatesNothing(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		established(a, b)
		o, hole := loopback(a, b)
		for name, pkts := range traffic() {
			batch := make([]packet.Outbound, len(pkts))
			send := func() {
				copy(batch, pkts)
				o.process(batch)
			}
			send() // notes the flows
			hole.packets = 0
			if n := testing.AllocsPerRun(20, send); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
			if name != "no owner, refused" && hole.packets == 0 {
				t.Errorf("%s: nothing arrived", name)
			}
		}
	})
}

// TestWholeSuperPacketArrives checks the bytes of segments across both loops.
func TestWholeSuperPacketArrives(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		established(a, b)
		o, hole := loopback(a, b)
		o.process([]packet.Outbound{superPacket(47)})
		want := tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.ACK, make([]byte, 47*1208)...)
		if hole.packets != 47 || hole.bytes != len(want) || !bytes.Equal(hole.mem[40:hole.bytes], want[40:]) {
			t.Errorf("%d packets, %d bytes, want 47, %d", hole.packets, hole.bytes, len(want))
		}
	})
}

// TestManyPeers covers WG-53: a cold peer costs bytes, not goroutines.
func TestManyPeers(t *testing.T) {
	const peers = 100_000
	nm := bigNetmap(peers)
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := testNodes(t, nil)
		defer stop()
		n := nodes[0]
		n.netmap.Store(&netmap.Netmap{Self: nm.Self})
		quiet()
		goroutines, before := bubbled(), heap()
		n.netmap.Store(nm)
		quiet()
		after := heap()
		if got := bubbled(); got != goroutines || got == 0 {
			t.Errorf("%d goroutines with %d peers, %d without", got, peers, goroutines)
		}
		perPeer := (int64(after) - int64(before)) / peers
		t.Logf("%d bytes per cold peer beyond the network map", perPeer)
		if perPeer > 1000 {
			t.Errorf("%d bytes per cold peer, want at most 1000", perPeer)
		}
		if s := n.d.Stats(); s.Peers != peers || s.Routes != 2*peers {
			t.Errorf("%d peers, %d routes", s.Peers, s.Routes)
		}
		n.netmap.Store(&netmap.Netmap{Self: nm.Self})
		quiet()
		if left := int64(heap()) - int64(before); left > peers*20 {
			t.Errorf("%d bytes stay when the peers are gone", left)
		}
	})
}

// bubbled returns how many goroutines are in a bubble. Those outside come and go:
// the runtime has some to clean up with.
func bubbled() int {
	stacks := make([]byte, 1<<20)
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte(", synctest bubble "))
}

// heap returns the bytes of live objects.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkPipeline goes from the link of one node to the delivery of another on
// one goroutine: filter, route, seal, open, verdict, merge.
func BenchmarkPipeline(b *testing.B) {
	nodes, stop := testNodes(b, nil)
	defer stop()
	x, y := nodes[0], nodes[1]
	y.cable.arrived = make(chan struct{}, 1)
	x.learn(y.self())
	y.learn(x.self())
	for y.d.table.Load().netmap.Self == nil || x.d.table.Load().netmap.Self == nil {
		runtime.Gosched()
	}
	x.cable.put(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
	<-y.cable.arrived
	o, hole := loopback(x, y)
	for name, pkts := range traffic() {
		b.Run(name, func(b *testing.B) {
			batch := make([]packet.Outbound, len(pkts))
			hole.packets, hole.bytes = 0, 0
			b.ReportAllocs()
			for b.Loop() {
				copy(batch, pkts)
				o.process(batch)
			}
			b.SetBytes(int64(hole.bytes / max(b.N, 1)))
		})
	}
}
