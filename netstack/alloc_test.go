package netstack

import (
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/seed94491740/tsnode/packet"
)

// piecewise returns a packet whose payload lies in pieces of a size, behind
// network and transport headers if headers is even, and its bytes.
func piecewise(payload []byte, piece, headers int) (p *stack.PacketBuffer, want []byte) {
	var b buffer.Buffer
	piece = max(piece, 1)
	for i := 0; i < len(payload); i += piece {
		b.Append(buffer.NewViewWithData(payload[i:min(i+piece, len(payload))]))
	}
	p = stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 60, Payload: b})
	if headers%2 == 0 {
		p.TransportProtocolNumber = header.TCPProtocolNumber
		fill(p.TransportHeader().Push(20), 0x22)
		fill(p.NetworkHeader().Push(40), 0x11)
	}
	v := p.ToView()
	defer v.Release()
	return p, append([]byte(nil), v.AsSlice()...)
}

func fill(b []byte, with byte) {
	for i := range b {
		b[i] = with
	}
}

// The packet path of this package allocates nothing (WG-82).
func TestPacketPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector empties pools at random; only that it runs is tested")
	}
	s := newStack(t, a4)
	pc, c := listenUDP(t, s, netip.AddrPortFrom(a4, 0)), dialUDP(t, s, netip.AddrPortFrom(b4, 9))
	pkt := udpPacket(t, netip.AddrPortFrom(b4, 9), netip.AddrPortFrom(a4, portOf(pc.LocalAddr())), "hello")
	tcp := fakePacket(t, 1200)
	d, out, buf := s.Link().NewDelivery(), make([]packet.Outbound, 4), make([]byte, 2000)
	for _, tt := range []struct {
		name string
		do   func()
	}{
		{"push, Next and Done", func() {
			s.Link().push(tcp)
			s.Link().Done(s.Link().Next(out))
		}},
		{"Reserve, Commit, Flush and ReadFromUDPAddrPort", func() {
			copy(d.Reserve(len(pkt)), pkt)
			d.Commit(packet.Merged{Len: len(pkt), Count: 1})
			d.Flush()
			pc.ReadFromUDPAddrPort(buf)
		}},
		{"Write, Next and Done", func() {
			c.Write(buf[:100])
			s.Link().Done(s.Link().Next(out))
		}},
	} {
		if n := testing.AllocsPerRun(1000, tt.do); n > 0 && !raceEnabled {
			t.Errorf("%s: %v allocations, want none", tt.name, n)
		}
	}
}

// An idle stack, of which a process may have many, is small (SVC-51).
func TestIdleStackIsSmall(t *testing.T) {
	const stacks = 50
	heap, goroutines := inUse(), runtime.NumGoroutine()
	all := make([]*Stack, stacks)
	for i := range all {
		all[i] = newStack(t, a4, a6)
		listenTCP(t, all[i], anyPort)
		listenUDP(t, all[i], anyPort)
	}
	perStack := (inUse() - heap) / stacks
	if perStack > 256<<10 && !raceEnabled {
		t.Errorf("an idle stack with two listeners has %d bytes", perStack)
	}
	// gVisor has as many TCP processors as the machine.
	if n := (runtime.NumGoroutine() - goroutines) / stacks; n > runtime.GOMAXPROCS(0)+1 {
		t.Errorf("an idle stack has %d goroutines", n)
	}
	t.Logf("an idle stack has %d bytes", perStack)
	runtime.KeepAlive(all)
}

func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func BenchmarkNextDone(b *testing.B) {
	l := newLink(newNIC(DefaultMTU))
	defer l.close()
	p := fakePacket(b, 50<<10)
	out := make([]packet.Outbound, 32)
	b.ReportAllocs()
	for b.Loop() {
		l.push(p)
		l.Done(l.Next(out))
	}
}

func BenchmarkDeliverUDP(b *testing.B) {
	s := newStack(b, b4)
	pc := listenUDP(b, s, netip.AddrPortFrom(b4, 0))
	pkt := udpPacket(b, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())), string(make([]byte, 1200)))
	d, buf := s.Link().NewDelivery(), make([]byte, 2000)
	b.SetBytes(int64(len(pkt)))
	b.ReportAllocs()
	for b.Loop() {
		copy(d.Reserve(len(pkt)), pkt)
		d.Commit(packet.Merged{Len: len(pkt), Count: 1})
		d.Flush()
		pc.ReadFromUDPAddrPort(buf)
	}
}

func BenchmarkWriteUDP(b *testing.B) {
	s := newStack(b, a4)
	c, out, buf := dialUDP(b, s, netip.AddrPortFrom(b4, 9)), make([]packet.Outbound, 32), make([]byte, 1200)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		c.Write(buf)
		s.Link().Done(s.Link().Next(out))
	}
}

// BenchmarkTCP is one flow between two stacks of one process over a cable that
// delivers super-packets whole.
func BenchmarkTCP(b *testing.B) {
	x, y := newStack(b, a4), newStack(b, b4)
	join(b, x, y, merged)
	client, server := connected(b, x, y, b4)
	server.SetDeadline(time.Time{})
	client.SetDeadline(time.Time{})
	go io.Copy(io.Discard, server)
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
