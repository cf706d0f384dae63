package netstack

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	a4, b4 = netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	a6, b6 = netip.MustParseAddr("fd7a:115c:a1e0::1"), netip.MustParseAddr("fd7a:115c:a1e0::2")
)

// newStack returns a stack with addresses, closed at the end of the test.
func newStack(t testing.TB, addrs ...netip.Addr) *Stack {
	t.Helper()
	return newStackOf(t, Config{}, addrs...)
}

func newStackOf(t testing.TB, c Config, addrs ...netip.Addr) *Stack {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.SetAddresses(addrs); err != nil {
		t.Fatal(err)
	}
	return s
}

// Link returns the one link of a stack.
func (s *Stack) Link() *Link { return s.links[0] }

// pair returns two stacks joined by a cable.
func pair(t testing.TB) (a, b *Stack) {
	a, b = newStack(t, a4, a6), newStack(t, b4, b6)
	join(t, a, b, segmented)
	return a, b
}

// join runs a cable in both directions until the test ends, or until unplug.
func join(t testing.TB, a, b *Stack, how cable) (unplug func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { how.carry(ctx, t, a.Link(), b.Link()) })
	wg.Go(func() { how.carry(ctx, t, b.Link(), a.Link()) })
	unplug = func() { cancel(); wg.Wait() }
	t.Cleanup(unplug)
	return unplug
}

// A cable says what becomes of a packet on its way.
type cable func(t testing.TB, o *packet.Outbound, d *Delivery)

// segmented cuts super-packets as the tunnel does, and delivers each piece.
func segmented(t testing.TB, o *packet.Outbound, d *Delivery) {
	for _, pkt := range cut(t, o) {
		copy(d.Reserve(len(pkt)), pkt)
		d.Commit(packet.Merged{Len: len(pkt), Count: 1})
	}
}

// merged delivers super-packets whole with a stale checksum, as the tunnel does
// that has merged the pieces again.
func merged(_ testing.TB, o *packet.Outbound, d *Delivery) {
	b := d.Reserve(o.Len())
	n := copy(b, o.Head)
	for _, part := range o.Body {
		n += copy(b[n:], part)
	}
	d.Commit(packet.Merged{Len: n, HeaderLen: len(o.Head), Segment: o.Segment, Count: 2})
}

// carry moves packets from one link to another until ctx ends.
func (c cable) carry(ctx context.Context, t testing.TB, from, to *Link) {
	detach := from.Attach()
	defer detach()
	d := to.NewDelivery()
	batch := make([]packet.Outbound, 16)
	for {
		n := from.Next(batch)
		for i := range batch[:n] {
			c(t, &batch[i], d)
		}
		from.Done(n)
		d.Flush()
		if n > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-from.Ready():
		}
	}
}

// cut returns the packets of o with correct lengths and checksums. It is written
// for clarity, not speed.
func cut(t testing.TB, o *packet.Outbound) (pkts [][]byte) {
	var payload []byte
	for _, b := range o.Body {
		payload = append(payload, b...)
	}
	if o.Segment == 0 {
		pkt := append(append([]byte(nil), o.Head...), payload...)
		if o.Partial {
			finish(t, pkt, 0, true)
		}
		return [][]byte{pkt}
	}
	for off := 0; off < len(payload); off += o.Segment {
		end := min(off+o.Segment, len(payload))
		pkt := append(append([]byte(nil), o.Head...), payload[off:end]...)
		finish(t, pkt, off, end == len(payload))
		pkts = append(pkts, pkt)
	}
	return pkts
}

// finish sets lengths, sequence number, flags and checksums of one TCP piece.
func finish(t testing.TB, pkt []byte, off int, last bool) {
	ihl := 40
	if pkt[0]>>4 == 4 {
		ihl = int(pkt[0]&15) * 4
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		packet.SetIPv4Checksum(pkt, ihl)
	} else {
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-ihl))
	}
	seg := pkt[ihl:]
	binary.BigEndian.PutUint32(seg[4:], binary.BigEndian.Uint32(seg[4:])+uint32(off))
	if !last {
		seg[13] &^= packet.FIN | packet.PSH
	}
	var h packet.Header
	h.Parse(pkt)
	if !h.SetChecksum(pkt) {
		t.Errorf("no checksum for %v", h)
	}
}

// take returns the next packet that s sends, whole.
func take(t testing.TB, s *Stack) []byte {
	t.Helper()
	out := make([]packet.Outbound, 1)
	for s.Link().Next(out) == 0 {
		select {
		case <-s.Link().Ready():
		case <-within(t).Done():
			t.Fatal("the stack sends nothing")
		}
	}
	pkt := cut(t, &out[0])[0]
	s.Link().Done(1)
	return pkt
}

// silent fails the test if s has sent anything.
func silent(t testing.TB, s *Stack) {
	t.Helper()
	out := make([]packet.Outbound, 1)
	if n := s.Link().Next(out); n != 0 {
		t.Errorf("the stack sent %x", out[0].Head)
		s.Link().Done(n)
	}
}

// udpPacket returns a UDP packet with a correct checksum.
func udpPacket(t testing.TB, src, dst netip.AddrPort, payload string) []byte {
	t.Helper()
	pkt, err := packet.AppendIP(nil, src.Addr(), dst.Addr(), packet.UDP, 8+len(payload))
	if err != nil {
		t.Fatal(err)
	}
	pkt = binary.BigEndian.AppendUint16(pkt, src.Port())
	pkt = binary.BigEndian.AppendUint16(pkt, dst.Port())
	pkt = binary.BigEndian.AppendUint16(pkt, uint16(8+len(payload)))
	pkt = append(append(pkt, 0, 0), payload...)
	return withChecksum(t, pkt)
}

// synPacket returns a SYN without options.
func synPacket(t testing.TB, src, dst netip.AddrPort, seq uint32) []byte {
	t.Helper()
	pkt, err := packet.AppendIP(nil, src.Addr(), dst.Addr(), packet.TCP, 20)
	if err != nil {
		t.Fatal(err)
	}
	pkt = binary.BigEndian.AppendUint16(pkt, src.Port())
	pkt = binary.BigEndian.AppendUint16(pkt, dst.Port())
	pkt = binary.BigEndian.AppendUint32(pkt, seq)
	pkt = append(pkt, 0, 0, 0, 0, 5<<4, packet.SYN, 0xff, 0xff, 0, 0, 0, 0)
	return withChecksum(t, pkt)
}

func withChecksum(t testing.TB, pkt []byte) []byte {
	t.Helper()
	var h packet.Header
	h.Parse(pkt)
	if h.SetChecksum(pkt) {
		return pkt
	}
	var sum uint16 // of ICMP; only that of IPv6 has a pseudo-header
	switch h.Proto {
	case packet.ICMPv4:
	case packet.ICMPv6:
		sum = packet.PseudoSum(pkt, h.Proto, len(pkt)-h.Transport)
	default:
		t.Fatalf("no checksum for %x", pkt)
	}
	binary.BigEndian.PutUint16(pkt[h.Transport+2:], ^packet.Sum(pkt[h.Transport:], sum))
	return pkt
}
