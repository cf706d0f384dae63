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
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.SetAddresses(addrs); err != nil {
		t.Fatal(err)
	}
	return s
}

// pair returns two stacks joined by a cable.
func pair(t testing.TB) (a, b *Stack) {
	a, b = newStack(t, a4, a6), newStack(t, b4, b6)
	join(t, a, b)
	return a, b
}

// join runs a cable in both directions until the test ends.
func join(t testing.TB, a, b *Stack) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { carry(ctx, t, a.Link(), b.Link()) })
	wg.Go(func() { carry(ctx, t, b.Link(), a.Link()) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// carry moves packets from one link to another, cutting super-packets as the
// tunnel does.
func carry(ctx context.Context, t testing.TB, from, to *Link) {
	detach := from.Attach()
	defer detach()
	d := to.NewDelivery()
	batch := make([]packet.Outbound, 16)
	for {
		n := from.Next(batch)
		for i := range batch[:n] {
			for _, pkt := range cut(t, &batch[i]) {
				copy(d.Reserve(len(pkt)), pkt)
				d.Commit(packet.Merged{Len: len(pkt), Count: 1})
			}
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
