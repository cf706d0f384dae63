package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/seed94491740/tsnode/packet"
)

func listenUDP(t testing.TB, s *Stack, addr netip.AddrPort) *UDPConn {
	t.Helper()
	pc, err := s.ListenUDP(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	pc.SetDeadline(time.Now().Add(patience))
	return pc.(*UDPConn)
}

func dialUDP(t testing.TB, s *Stack, dst netip.AddrPort) *UDPConn {
	t.Helper()
	c, err := s.DialUDP(within(t), netip.AddrPort{}, dst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*UDPConn)
}

// echo answers every datagram of pc until it is closed.
func echo(pc net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		pc.WriteTo(buf[:n], from)
	}
}

// One socket serves both families, datagrams of every size included (SVC-60).
func TestUDPBothFamiliesOnOneSocket(t *testing.T) {
	a, b := pair(t)
	pc := listenUDP(t, b, anyPort)
	go echo(pc)
	for _, dst := range []netip.Addr{b4, b6} {
		to := netip.AddrPortFrom(dst, portOf(pc.LocalAddr()))
		c := dialUDP(t, a, to)
		for _, size := range []int{0, 1, 1200, 1280, 4000, maxDatagram} { // most are fragmented
			want := bytes.Repeat([]byte{byte(size)}, size)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<16)
			if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("%v: echo of %d bytes: %d, %v", dst, size, n, err)
			}
		}
		if c.RemoteAddr().String() != to.String() || c.LocalAddr().(*net.UDPAddr).Port == 0 {
			t.Errorf("addresses %v and %v", c.LocalAddr(), c.RemoteAddr())
		}
		if _, err := c.Write(make([]byte, maxDatagram+1)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("a datagram too long: %v, want EMSGSIZE", err)
		}
	}
}

// A read takes what fits, and the rest of the datagram is lost.
func TestUDPReadTruncates(t *testing.T) {
	a, b := pair(t)
	pc := listenUDP(t, b, anyPort)
	c := dialUDP(t, a, netip.AddrPortFrom(b4, portOf(pc.LocalAddr())))
	c.Write([]byte("hello"))
	c.Write([]byte("again"))
	got := make([]byte, 3)
	for _, want := range []string{"hel", "aga"} {
		n, from, err := pc.ReadFrom(got)
		if err != nil || string(got[:n]) != want || from.String() != c.LocalAddr().String() {
			t.Errorf("got %q from %v, %v; want %q", got[:n], from, err, want)
		}
	}
}

// A reply leaves from the address that was asked, also on a socket that is bound
// to all of them, and the peer's connected socket takes it (SVC-60).
func TestUDPRepliesFromAskedAddress(t *testing.T) {
	a, b := pair(t)
	vip4, vip6 := netip.MustParseAddr("100.64.0.50"), netip.MustParseAddr("fd7a:115c:a1e0::50")
	if err := b.SetAddresses([]netip.Addr{b4, b6, vip4, vip6}); err != nil {
		t.Fatal(err)
	}
	pc := listenUDP(t, b, anyPort)
	go echo(pc)
	var wg sync.WaitGroup
	for _, dst := range []netip.Addr{b4, b6, vip4, vip6} {
		c := dialUDP(t, a, netip.AddrPortFrom(dst, portOf(pc.LocalAddr())))
		wg.Go(func() {
			for i := range 20 {
				want := fmt.Sprint(dst, i)
				c.Write([]byte(want))
				got := make([]byte, 100)
				if n, err := c.Read(got); err != nil || string(got[:n]) != want {
					t.Errorf("reply %d from %v: %q, %v", i, dst, got[:n], err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// What a socket remembers of its peers is bounded.
func TestAskedIsBounded(t *testing.T) {
	var a asked
	vip := netip.MustParseAddr("100.64.0.50")
	for i := range 10 * askedLimit {
		a.note(netip.AddrPortFrom(a4, uint16(i+1)), vip, b4)
	}
	if len(a.to) != askedLimit {
		t.Errorf("%d peers are remembered, want %d", len(a.to), askedLimit)
	}
	last := netip.AddrPortFrom(a4, uint16(10*askedLimit))
	if got := a.at(last); got != vip {
		t.Errorf("the last peer is answered from %v, want %v", got, vip)
	}
	if a.note(last, b4, b4); a.at(last).IsValid() {
		t.Error("a peer that asks the first address is not forgotten")
	}
}

// Of several sockets on a port the most specific one gets the datagram.
func TestUDPMostSpecificWins(t *testing.T) {
	a, b := pair(t)
	all := listenUDP(t, b, anyPort)
	port := portOf(all.LocalAddr())
	one := listenUDP(t, b, netip.AddrPortFrom(b4, port))
	for dst, pc := range map[netip.Addr]*UDPConn{b4: one, b6: all} {
		dialUDP(t, a, netip.AddrPortFrom(dst, port)).Write([]byte("x"))
		if n, _, err := pc.ReadFrom(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("%v: %d, %v", dst, n, err)
		}
	}
	peer := dialUDP(t, b, netip.AddrPortFrom(a4, 5)) // takes what comes from there only
	if p := portOf(peer.LocalAddr()); p == port {
		t.Errorf("port %d was given twice", p)
	}
}

// A socket of one family does not hear the other.
func TestUDPOneFamily(t *testing.T) {
	a, b := pair(t)
	pc := listenUDP(t, b, netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	port := portOf(pc.LocalAddr())
	dialUDP(t, a, netip.AddrPortFrom(b4, port)).Write([]byte("4"))
	dialUDP(t, a, netip.AddrPortFrom(b6, port)).Write([]byte("6"))
	got := make([]byte, 10)
	if n, _, err := pc.ReadFrom(got); err != nil || string(got[:n]) != "6" {
		t.Errorf("got %q, %v", got[:n], err)
	}
	if n := b.Stats().UDPNobody; n != 1 {
		t.Errorf("%d datagrams for nobody, want 1", n)
	}
}

// A datagram to a port without a socket is dropped and counted, without an ICMP
// message (SVC-59).
func TestUDPNobodyListens(t *testing.T) {
	s := newStack(t, b4, b6)
	for _, addrs := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		s.Link().Inject(udpPacket(t, netip.AddrPortFrom(addrs[0], 9), netip.AddrPortFrom(addrs[1], 9), "hello"))
	}
	silent(t, s)
	if n := s.Stats().UDPNobody; n != 2 {
		t.Errorf("%d datagrams for nobody, want 2", n)
	}
}

// What gVisor or a socket drops is counted: packets for addresses that are not the
// stack's, and those that are none.
func TestDropsAreCounted(t *testing.T) {
	s := newStack(t, b4, b6)
	listenUDP(t, s, netip.AddrPortFrom(netip.Addr{}, 9))
	for _, addrs := range [][3]netip.Addr{{a4, b4, host4}, {a6, b6, host6}} {
		from, own, other := netip.AddrPortFrom(addrs[0], 9), netip.AddrPortFrom(addrs[1], 9), netip.AddrPortFrom(addrs[2], 9)
		s.Link().Inject(udpPacket(t, from, other, "hello"))
		long := udpPacket(t, from, own, "hello")
		binary.BigEndian.PutUint16(long[len(long)-5-4:], 100) // its length, beyond its end
		s.Link().Inject(long)
	}
	silent(t, s)
	if n := s.Stats(); n.Misdelivered != 2 || n.Malformed != 2 || n.UDPNobody != 0 {
		t.Errorf("%d misdelivered, %d malformed, %d for nobody; want 2, 2, 0", n.Misdelivered, n.Malformed, n.UDPNobody)
	}
}

// A connected socket learns once that its peer has no such port; one that is not
// connected does not.
func TestUDPRefused(t *testing.T) {
	s := newStack(t, a4, a6)
	for _, dst := range []netip.Addr{b4, b6} {
		to := netip.AddrPortFrom(dst, 9)
		c := dialUDP(t, s, to)
		c.Write([]byte("hello"))
		s.Link().Inject(portUnreachable(t, take(t, s)))
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("read: %v, want ECONNREFUSED", err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Errorf("the error is told twice: %v", err)
		}
		s.Link().Inject(portUnreachable(t, take(t, s)))
		if _, err := c.Write([]byte("hello")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("write: %v, want ECONNREFUSED", err)
		}
		pc := listenUDP(t, s, anyPort)
		pc.WriteToUDPAddrPort([]byte("hello"), to)
		s.Link().Inject(portUnreachable(t, take(t, s)))
		pc.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, _, err := pc.ReadFrom(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("socket that is not connected: %v", err)
		}
	}
}

// portUnreachable returns the ICMP message that pkt's port has no socket.
func portUnreachable(t testing.TB, pkt []byte) []byte {
	t.Helper()
	var h packet.Header
	h.Parse(pkt)
	proto, icmp := packet.ICMPv4, []byte{3, 3, 0, 0, 0, 0, 0, 0}
	if h.Version == 6 {
		proto, icmp = packet.ICMPv6, []byte{1, 4, 0, 0, 0, 0, 0, 0}
	}
	out, err := packet.AppendIP(nil, h.Dst.Addr(), h.Src.Addr(), proto, len(icmp)+len(pkt))
	if err != nil {
		t.Fatal(err)
	}
	return withChecksum(t, append(append(out, icmp...), pkt...))
}

// Datagrams that nobody reads use bounded memory, empty ones included; the rest
// is counted.
func TestUDPReceiveIsBounded(t *testing.T) {
	for _, payload := range []string{"", "x", string(make([]byte, 1200))} {
		s := newStack(t, b4)
		pc := listenUDP(t, s, netip.AddrPortFrom(b4, 0))
		pc.SetReadBuffer(64 << 10)
		pkt := udpPacket(t, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())), payload)
		const sent = 1000
		for range sent {
			s.Link().Inject(pkt)
		}
		kept := pc.in.queue.size
		if limit := 64<<10/queueOverhead + 1; kept > limit || kept == 0 {
			t.Errorf("%d bytes each: %d datagrams wait, want up to %d", len(payload), kept, limit)
		}
		if got := s.Stats().UDPOverflow; got != uint64(sent-kept) {
			t.Errorf("%d bytes each: %d lost, want %d", len(payload), got, sent-kept)
		}
		for range kept {
			if n, _, err := pc.ReadFrom(make([]byte, 2000)); n != len(payload) || err != nil {
				t.Fatalf("read: %d, %v", n, err)
			}
		}
		if pc.in.bytes != 0 {
			t.Errorf("%d bytes are counted in an empty queue", pc.in.bytes)
		}
	}
}

// stuck returns a stack whose link is full to n bytes below the end of its
// reserve, and whose loop has stopped without detaching.
func stuck(t testing.TB, n int) *Stack {
	t.Helper()
	s := newStack(t, a4)
	detach := s.Link().Attach()
	t.Cleanup(detach)
	l, p := s.Link(), fakePacket(t, n-queueOverhead)
	p.TransportProtocolNumber = header.ICMPv4ProtocolNumber // it may use the reserve
	for l.bytes+n < queueLimit+queueReserve {
		if err := l.push(p); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Nobody drains the link: writes of UDP end all the same, and what is lost is
// counted (WG-83).
func TestUDPWriteWaitsALittle(t *testing.T) {
	s := stuck(t, 10_000)
	c := dialUDP(t, s, netip.AddrPortFrom(b4, 9))
	b := make([]byte, 1200)
	for range 20 {
		if n, err := c.Write(b); n != len(b) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if got := s.Stats(); got.UDPLost == 0 || got.LinkDropped != got.UDPLost {
		t.Errorf("24 kB fit into 10 kB: %+v", got)
	}
}

// What a UDP write returns that waits for room in the link queue.
func TestUDPWriteWaits(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*Stack, *UDPConn)
		want error
	}{
		{"there is room", func(s *Stack, _ *UDPConn) { s.Link().Done(s.Link().Next(make([]packet.Outbound, 100))) }, nil},
		{"the loop stops", func(s *Stack, _ *UDPConn) {
			s.Link().mu.Lock()
			defer s.Link().mu.Unlock()
			s.Link().wakeAll()
		}, nil},
		{"its deadline passes", func(_ *Stack, c *UDPConn) { c.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		{"the socket closes", func(_ *Stack, c *UDPConn) { c.Close() }, net.ErrClosed},
		{"the stack closes", func(s *Stack, _ *UDPConn) { s.Close() }, net.ErrClosed},
	} {
		s := stuck(t, 10_000)
		c := dialUDP(t, s, netip.AddrPortFrom(b4, 9))
		c.out.patience = patience
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(make([]byte, 100)); wrote <- err }()
		eventually(t, func() bool { return waiting(s.Link()) == 1 })
		tt.do(s, c)
		if err := <-wrote; !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if n := waiting(s.Link()); n != 0 {
			t.Errorf("%s: %d writes are in the line, want none", tt.name, n)
		}
	}
}

// What stays in the stack does not wait for a link that is full (WG-83).
func TestUDPToItselfNeverWaits(t *testing.T) {
	s := stuck(t, 10_000)
	ln := listenUDP(t, s, anyPort)
	c := dialUDP(t, s, netip.AddrPortFrom(a4, portOf(ln.LocalAddr())))
	if _, err := c.Write([]byte("own")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if n, err := ln.Read(b); err != nil || string(b[:n]) != "own" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if n := len(s.Link().spare); n != 0 { // who has waited leaves its place there
		t.Errorf("%d writes have waited", n)
	}
}

// The headers of a datagram that does not go through gVisor are those it would
// have made, but for the identification of IPv4, which differs each time.
func TestUDPHeadersAreGVisors(t *testing.T) {
	s := newStack(t, a4, a6)
	for _, dst := range []netip.Addr{b4, b6} {
		c := dialUDP(t, s, netip.AddrPortFrom(dst, 9))
		for _, size := range []int{0, 1, 2, 1200} {
			var pkts [2][]byte
			for i, direct := range []bool{true, false} {
				c.out.routeTo(c.bound.local, dst)
				c.out.direct = direct
				if _, err := c.Write(bytes.Repeat([]byte{7}, size)); err != nil {
					t.Fatal(err)
				}
				pkts[i] = take(t, s)
				if dst.Is4() {
					ip := header.IPv4(pkts[i])
					if !ip.IsChecksumValid() {
						t.Errorf("%d bytes to %v: the IP header's checksum is wrong", size, dst)
					}
					ip.SetID(0)
					ip.SetChecksum(0)
				}
			}
			if !bytes.Equal(pkts[0], pkts[1]) {
				t.Errorf("%d bytes to %v: %x, want %x", size, dst, pkts[0], pkts[1])
			}
		}
	}
}

// Malformed datagrams do not reach a socket.
func TestUDPMalformed(t *testing.T) {
	s := newStack(t, b4)
	pc := listenUDP(t, s, netip.AddrPortFrom(b4, 0))
	good := udpPacket(t, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())), "hello")
	for _, length := range []uint16{0, 7, 14, 0xffff} {
		bad := bytes.Clone(good)
		binary.BigEndian.PutUint16(bad[24:], length)
		s.Link().Inject(bad)
	}
	for n := range good {
		s.Link().Inject(good[:n])
	}
	shorter := bytes.Clone(good)
	binary.BigEndian.PutUint16(shorter[24:], 8+4) // the fifth byte is not the datagram's
	s.Link().Inject(shorter)
	s.Link().Inject(good)
	got := make([]byte, 10)
	for _, want := range []string{"hell", "hello"} {
		if n, _, err := pc.ReadFrom(got); err != nil || string(got[:n]) != want {
			t.Errorf("got %q, %v; want %q", got[:n], err, want)
		}
	}
	if pc.in.queue.size != 0 {
		t.Error("a malformed datagram was taken")
	}
}

// What reading and writing return in the wrong state.
func TestUDPErrors(t *testing.T) {
	a, _ := pair(t)
	c, pc := dialUDP(t, a, netip.AddrPortFrom(b4, 9)), listenUDP(t, a, netip.AddrPortFrom(a4, 0))
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(b4, 9))
	for _, tt := range []struct {
		name string
		do   func() error
		want error
	}{
		{"WriteTo on a connected socket", func() error { _, err := c.WriteTo(nil, to); return err }, net.ErrWriteToConnected},
		{"Write without a peer", func() error { _, err := pc.Write(nil); return err }, syscall.EDESTADDRREQ},
		{"WriteTo nil", func() error { _, err := pc.WriteTo(nil, nil); return err }, syscall.EDESTADDRREQ},
		{"to port 0", func() error { _, err := pc.WriteTo(nil, &net.UDPAddr{IP: to.IP}); return err }, syscall.EDESTADDRREQ},
		{"to nowhere", func() error { _, err := pc.WriteTo(nil, &net.UDPAddr{Port: 9}); return err }, syscall.EDESTADDRREQ},
		{"to the other family", func() error {
			_, err := pc.WriteToUDPAddrPort(nil, netip.AddrPortFrom(b6, 9))
			return err
		}, syscall.EADDRNOTAVAIL},
		{"read deadline", func() error {
			pc.SetReadDeadline(time.Now().Add(-time.Second))
			_, _, err := pc.ReadFrom(nil)
			return err
		}, os.ErrDeadlineExceeded},
		{"write deadline", func() error {
			pc.SetWriteDeadline(time.Now().Add(-time.Second))
			_, err := pc.WriteTo(nil, to)
			return err
		}, os.ErrDeadlineExceeded},
	} {
		err := tt.do()
		var op *net.OpError
		if !errors.Is(err, tt.want) || !errors.As(err, &op) || op.Net != "udp" {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := pc.WriteTo(nil, &net.UnixAddr{Name: "x"}); err == nil {
		t.Error("an address without IP is taken")
	}
}

// Close ends reads that wait; a closed socket does nothing, and its port is free.
func TestUDPClose(t *testing.T) {
	s := newStack(t, a4)
	pc := listenUDP(t, s, netip.AddrPortFrom(a4, 0))
	waiting := make(chan error, 2)
	for range 2 {
		go func() { _, _, err := pc.ReadFrom(make([]byte, 1)); waiting <- err }()
	}
	if err := pc.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := pc.WriteToUDPAddrPort(nil, netip.AddrPortFrom(b4, 9))
	for _, err := range []error{<-waiting, <-waiting, err, pc.Close(), pc.SetDeadline(time.Time{})} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want net.ErrClosed", err)
		}
	}
	listenUDP(t, s, netip.AddrPortFrom(a4, portOf(pc.LocalAddr())))
}

// Sockets on port 0 get ports that nobody uses, until there are none.
func TestUDPFreePorts(t *testing.T) {
	p := udpPorts{used: map[uint16]int{}}
	for port := firstFreePort; port < 1<<16; port++ {
		p.used[uint16(port)] = 1
	}
	if got := p.free(); got != 0 {
		t.Errorf("port %d is not free", got)
	}
	delete(p.used, 65535)
	if got := p.free(); got != 65535 {
		t.Errorf("got %d, want the one that is free", got)
	}
}

// A node can send datagrams to itself.
func TestUDPToItself(t *testing.T) {
	s := newStack(t, a4, a6)
	pc := listenUDP(t, s, anyPort)
	go echo(pc)
	for _, addr := range []netip.Addr{a4, a6} {
		c := dialUDP(t, s, netip.AddrPortFrom(addr, portOf(pc.LocalAddr())))
		c.Write([]byte("hello"))
		got := make([]byte, 10)
		if n, err := c.Read(got); err != nil || string(got[:n]) != "hello" {
			t.Errorf("%v: %q, %v", addr, got[:n], err)
		}
	}
	silent(t, s)
}

// DialUDP takes the address and port to send from.
func TestDialUDPFrom(t *testing.T) {
	a, b := pair(t)
	pc := listenUDP(t, b, anyPort)
	to := netip.AddrPortFrom(b4, portOf(pc.LocalAddr()))
	c, err := a.DialUDP(within(t), netip.AddrPortFrom(a4, 4000), to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("x"))
	if _, from, err := pc.ReadFrom(make([]byte, 1)); err != nil || from.String() != "100.64.0.1:4000" {
		t.Errorf("from %v, %v", from, err)
	}
	if _, err := a.DialUDP(within(t), netip.AddrPortFrom(a4, 4000), to); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the same again: %v, want EADDRINUSE", err)
	}
	if _, err := newStack(t).DialUDP(within(t), netip.AddrPort{}, to); !errors.Is(err, ErrNoAddress) {
		t.Errorf("without an address: %v, want ErrNoAddress", err)
	}
}
