package netstack

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// A packet that uses little of a large chunk is copied to a fitting one, and the
// chunk serves again (WG-72).
func TestDeliveryCopiesSparsePackets(t *testing.T) {
	s := newStack(t, a4)
	d := s.Link().NewDelivery()
	big := d.Reserve(60 << 10)
	if len(big) != 60<<10 {
		t.Fatalf("reserved %d bytes", len(big))
	}
	d.Commit(packet.Merged{Len: 1280, Count: 1})
	if d.reserved == nil {
		t.Error("a 64 KiB chunk went with a packet of 1280 bytes")
	}
	if got := d.pending[0].Size(); got != 1280 {
		t.Errorf("packet of %d bytes", got)
	}
	if again := d.Reserve(60 << 10); &again[0] != &big[0] {
		t.Error("the reservation is not used again")
	}
	if small := d.Reserve(100); &small[0] == &big[0] {
		t.Error("100 bytes are reserved as 64 KiB")
	}
	d.Flush()
	if len(d.pending) != 0 {
		t.Error("Flush leaves packets")
	}
}

// What was committed is delivered in order, by Flush and not before.
func TestDeliveryOrder(t *testing.T) {
	s := newStack(t, b4)
	pc := listenUDP(t, s, netip.AddrPortFrom(b4, 0))
	d := s.Link().NewDelivery()
	for i := range 100 {
		pkt := udpPacket(t, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())), string(rune(i)))
		copy(d.Reserve(len(pkt)+i*10), pkt)
		d.Commit(packet.Merged{Len: len(pkt), Count: 1})
	}
	if pc.in.queue.size != 0 {
		t.Error("delivered before Flush")
	}
	d.Flush()
	for i := range 100 {
		got := make([]byte, 10)
		if n, err := pc.Read(got); err != nil || string(got[:n]) != string(rune(i)) {
			t.Fatalf("datagram %d: %q, %v", i, got[:n], err)
		}
	}
}

// What is no IP packet, or has no length, is dropped.
func TestDeliverGarbage(t *testing.T) {
	s := newStack(t, a4)
	for _, pkt := range [][]byte{nil, {0}, {0x45}, {0x60}, make([]byte, 1280)} {
		s.Link().Inject(pkt)
	}
	d := s.Link().NewDelivery()
	d.Commit(packet.Merged{Len: 10}) // nothing reserved
	d.Reserve(10)
	d.Commit(packet.Merged{Len: 0})
	d.Commit(packet.Merged{Len: 11})
	d.Commit(packet.Merged{Len: -1})
	if len(d.pending) != 0 {
		t.Errorf("%d packets of no length are pending", len(d.pending))
	}
	d.Flush()
	silent(t, s)
}

// Inject copies: the caller may use its memory at once.
func TestInjectCopies(t *testing.T) {
	s := newStack(t, b4)
	pc := listenUDP(t, s, netip.AddrPortFrom(b4, 0))
	pkt := udpPacket(t, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())), "hello")
	s.Link().Inject(pkt)
	clear(pkt)
	got := make([]byte, 10)
	if n, err := pc.Read(got); err != nil || string(got[:n]) != "hello" {
		t.Errorf("got %q, %v", got[:n], err)
	}
}

// FuzzDeliver: whatever a peer sends, the stack neither panics nor sends what is
// no IP packet.
func FuzzDeliver(f *testing.F) {
	from, to := netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, 80)
	seeds := [][]byte{
		synPacket(f, from, to, 1), udpPacket(f, from, to, "hello"),
		synPacket(f, netip.AddrPortFrom(a6, 9), netip.AddrPortFrom(b6, 80), 1),
		udpPacket(f, netip.AddrPortFrom(a6, 9), netip.AddrPortFrom(b6, 80), "hello"),
	}
	seeds = append(seeds, portUnreachable(f, seeds[0]), portUnreachable(f, seeds[3]))
	for _, s := range seeds {
		f.Add(s, s[:len(s)/2])
	}
	s := newStack(f, b4, b6)
	listenTCP(f, s, netip.AddrPortFrom(netip.Addr{}, 80))
	pc := listenUDP(f, s, netip.AddrPortFrom(netip.Addr{}, 80))
	out := make([]packet.Outbound, 8)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d := s.Link().NewDelivery()
		for _, pkt := range [][]byte{first, second} {
			s.Link().Inject(pkt)
			copy(d.Reserve(len(pkt)), pkt)
			d.Commit(packet.Merged{Len: len(pkt), Count: 1})
		}
		d.Flush()
		for n := s.Link().Next(out); n > 0; n = s.Link().Next(out) {
			for i := range out[:n] {
				var h packet.Header
				h.ParseHead(out[i].Head, out[i].Len())
				if h.Version != 4 && h.Version != 6 || h.Length != out[i].Len() {
					t.Errorf("the stack sent %x", out[i].Head)
				}
			}
			s.Link().Done(n)
		}
		for pc.in.queue.size > 0 {
			if _, _, err := pc.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
				break
			}
		}
	})
}

// FuzzSlicer: however the memory of a packet is cut into pieces, head and body
// are the packet.
func FuzzSlicer(f *testing.F) {
	f.Add([]byte("payload of several pieces"), 3, 5)
	f.Add([]byte(""), 0, 1)
	f.Fuzz(func(t *testing.T, payload []byte, piece, headers int) {
		if len(payload) > 1<<12 {
			return
		}
		p, want := piecewise(payload, piece, headers)
		defer p.DecRef()
		var s slicer
		for range 2 { // its memory is used again
			s.reset()
			var o packet.Outbound
			s.describe(p, &o)
			got := bytes.Clone(o.Head)
			for _, b := range o.Body {
				got = append(got, b...)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("got %x, want %x", got, want)
			}
		}
	})
}
