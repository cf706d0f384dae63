package netstack

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

// SVC-50: beyond the limit of a source, SYNs are answered with a reset; other
// sources have room.
func TestForwardLimits(t *testing.T) {
	tl := tally{limit: 6, by: make(map[netip.Addr]int)}
	took := func(from netip.Addr) (n int) {
		for tl.take(from) {
			n++
		}
		return n
	}
	if n := took(a4); n != 4 {
		t.Errorf("one source has %d of 6", n)
	}
	if n := took(a6); n != 2 {
		t.Errorf("another has %d more", n)
	}
	for range 4 {
		tl.give(a4)
	}
	if n := took(b4); n != 4 || len(tl.by) != 2 {
		t.Errorf("after that another has %d, %v", n, tl.by)
	}
}

// SVC-50: a connection too many is refused with a reset, a datagram and an echo
// request too many is dropped; all are counted. There is room again once others
// have ended.
func TestForwardRefusesTooMany(t *testing.T) {
	const most = 3 // two for one peer
	a, _, f := forwardPair(t, func(f *testForward) { f.most = most })
	to := netip.AddrPortFrom(host4, 80)
	var conns []*Conn
	for range 2 {
		conns = append(conns, dialTCP(t, a, to))
	}
	if _, err := a.DialTCP(within(t), netip.Addr{}, to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("third connection: %v, want a refusal", err)
	}
	for i := range 3 {
		u, err := a.DialUDP(within(t), netip.AddrPort{}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.Write([]byte("x"))
		if i == 2 {
			break
		}
		u.SetReadDeadline(time.Now().Add(patience))
		if _, err := u.Read(make([]byte, 1)); err != nil {
			t.Errorf("flow %d: %v", i, err)
		}
	}
	waitFor(t, "refusals", func() bool { return f.Stats().Busy == 2 })
	conns[0].Close()
	waitFor(t, "an end", func() bool { return f.Stats().Open == 3 })
	dialTCP(t, a, to)
}

// What belongs to a connection or flow costs no memory on its way past the
// forwarder, nor what is refused because there are too many.
func TestForwardAllocatesNothing(t *testing.T) {
	a, b, _ := forwardPair(t, func(f *testForward) { f.most = 2 }) // one for one peer
	at := func(host netip.Addr) netip.AddrPort { return netip.AddrPortFrom(host, 2) }
	known, err := a.dialTCP(within(t), netip.AddrPortFrom(a4, 1), at(host4))
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	w := b.links[0].forward.Load()
	free := func(what string, pkt []byte) {
		t.Helper()
		if n := testing.AllocsPerRun(100, func() { w.takes(pkt) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	for _, dst := range []netip.Addr{b4, host4} {
		pkt := synPacket(t, netip.AddrPortFrom(a4, 1), at(dst), 1)
		pkt[20+13] = packet.ACK
		free("a segment to "+dst.String(), pkt)
	}
	datagram := func(port uint16) []byte {
		return udpPacket(t, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(host4, port), "x")
	}
	if !w.takes(datagram(2)) {
		t.Fatal("the first datagram begins no flow")
	}
	free("a datagram of a flow", datagram(2))
	free("a datagram too many", datagram(3))
}

// With a limit of memory there are fewer flows.
func TestForwardLimitsFollowMemory(t *testing.T) {
	for buffers, want := range map[int64]int{0: forwardLimits[forwardTCP], 1 << 20: 16, 64 << 20: 768, 8 << 30: forwardLimits[forwardTCP]} {
		f := newStackOf(t, Config{Buffers: buffers}).NewForwarder(ForwardConfig{})
		if got := f.limits[forwardTCP]; got != want {
			t.Errorf("with %d bytes %d connections, want %d", buffers, got, want)
		}
	}
}

// A peer that never completes its handshake is waited for no longer than there is
// a route.
func TestForwardHandshakeEndsWithRoute(t *testing.T) {
	_, b, f := forwardPair(t, nil)
	d := b.Link().NewDelivery()
	syn := synPacket(t, netip.AddrPortFrom(netip.MustParseAddr("100.64.0.77"), 1234), netip.AddrPortFrom(host4, 80), 7)
	copy(d.Reserve(len(syn)), syn)
	d.Commit(packet.Merged{Len: len(syn), Count: 1})
	waitFor(t, "a handshake under way", func() bool { return len(b.Flows()) == 1 })
	f.routes.Store([]netip.Prefix{behind6})
	waitFor(t, "its end", func() bool { return f.Stats().Open == 0 })
	if s := f.Stats(); s.TCP != 0 || s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

// Whether flows are to end takes as long as it takes to say; others begin
// meanwhile.
func TestForwardEndLetsOthersBegin(t *testing.T) {
	a, _, f := forwardPair(t, nil)
	dialTCP(t, a, netip.AddrPortFrom(host4, 80))
	waitFor(t, "a connection", func() bool { return f.Stats().TCP == 1 })
	f.End(func(packet.Proto, netip.AddrPort, netip.AddrPort) bool {
		dialTCP(t, a, netip.AddrPortFrom(host4, 81))
		return false
	})
}
