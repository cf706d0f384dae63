package netstack

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/seed94491740/tsnode/packet"
)

// rawSocket opens a raw socket and closes it at the end of the test.
func rawSocket(t testing.TB, s *Stack, host netip.Addr) *ICMPConn {
	t.Helper()
	pc, err := s.ListenICMP(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	pc.SetDeadline(time.Now().Add(10 * time.Second))
	return pc.(*ICMPConn)
}

// echoOf returns a whole ICMP message: type, code 0, identifier 7, sequence 1.
func echoOf(is4, reply bool, payload string) []byte {
	kind := map[bool]map[bool]byte{true: {false: 8, true: 0}, false: {false: 128, true: 129}}[is4][reply] // RFC 792, RFC 4443
	b := append([]byte{kind, 0, 0, 0, 0, 7, 0, 1}, payload...)
	if is4 {
		header.ICMPv4(b).SetChecksum(^checksum.Checksum(b, 0))
	}
	return b
}

// A raw socket gets the answer to an echo request that it has sent, from the
// peer's stack, without the IP header; a second socket gets a copy.
func TestRawSocketPings(t *testing.T) {
	a, _ := pair(t)
	for _, tt := range []struct {
		name     string
		host, to netip.Addr
		payload  string
	}{
		{"IPv4, all addresses", netip.IPv4Unspecified(), b4, "hello"},
		{"IPv4, one address", a4, b4, "hello"},
		{"IPv4, several fragments", a4, b4, string(bytes.Repeat([]byte("0123456789"), 300))},
		{"IPv6, all addresses", netip.IPv6Unspecified(), b6, "hello"},
		{"IPv6, one address", a6, b6, "hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conns := []*ICMPConn{rawSocket(t, a, tt.host), rawSocket(t, a, tt.host)}
			if n, err := conns[0].WriteTo(echoOf(tt.to.Is4(), false, tt.payload), ipAddr(tt.to)); err != nil || n != 8+len(tt.payload) {
				t.Fatalf("wrote %d, %v", n, err)
			}
			for _, c := range conns {
				b := make([]byte, 4096)
				n, from, err := c.ReadFrom(b)
				if err != nil || from.String() != tt.to.String() || from.Network() != "ip" {
					t.Fatalf("from %v: %v", from, err)
				}
				want := echoOf(tt.to.Is4(), true, tt.payload)
				copy(b[2:4], want[2:4]) // the checksum; the stack has checked it
				if !bytes.Equal(b[:n], want) {
					t.Errorf("got %x, want %x", b[:n], want)
				}
			}
		})
	}
}

// The stack goes on answering echo requests, and those of Ping reach it, while
// raw sockets are open on both sides.
func TestRawSocketsLeaveThePingAlone(t *testing.T) {
	a, b := pair(t)
	theirs := rawSocket(t, b, netip.IPv4Unspecified())
	rawSocket(t, a, netip.IPv4Unspecified())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Ping(ctx, b4, []byte("hello")); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 100)
	n, from, err := theirs.ReadFrom(buf)
	if err != nil || from.String() != a4.String() || buf[0] != 8 || !bytes.HasSuffix(buf[:n], []byte("hello")) {
		t.Errorf("the request was not copied: %x from %v, %v", buf[:n], from, err)
	}
}

// An echo program answers requests by itself: an address and what came are all
// that it needs.
func TestRawSocketEchoProgram(t *testing.T) {
	a, b := pair(t)
	theirs, ours := rawSocket(t, b, b6), rawSocket(t, a, a6)
	if _, err := ours.WriteTo(echoOf(false, false, "x"), ipAddr(b6)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := theirs.ReadFrom(buf)
	if err != nil || buf[0] != 128 {
		t.Fatalf("%x, %v", buf[:n], err)
	}
	buf[0] = 129
	if _, err := theirs.WriteTo(buf[:n], from); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one is the stack's
		n, from, err := ours.ReadFrom(buf)
		if err != nil || n != 9 || buf[0] != 129 || from.String() != b6.String() {
			t.Errorf("%x from %v, %v", buf[:n], from, err)
		}
	}
}

// A raw socket gets only what is for it: its IP version, and its address if it
// is bound to one; of ICMPv6, what has a good checksum (RFC 3542 section 3.1).
func TestRawSocketGetsOnlyItsOwn(t *testing.T) {
	other := netip.MustParseAddr("100.64.0.9")
	s := newStack(t, a4, other, a6)
	c4, c6 := rawSocket(t, s, other), rawSocket(t, s, netip.IPv6Unspecified())
	inject := func(src, dst netip.Addr, message []byte, good bool) {
		proto := packet.ICMPv4
		if dst.Is6() {
			proto = packet.ICMPv6
		}
		pkt, err := packet.AppendIP(nil, src, dst, proto, len(message))
		if err != nil {
			t.Fatal(err)
		}
		if pkt = append(pkt, message...); good {
			pkt = withChecksum(t, pkt)
		}
		s.Link().Inject(pkt)
	}
	unreachable := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, "for the second"...)
	inject(b4, a4, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, "for the first address"...), true)
	inject(b6, a6, echoOf(false, true, "bad checksum"), false)
	inject(b4, other, unreachable, true)
	inject(b6, a6, echoOf(false, true, "good"), true)
	buf := make([]byte, 5)
	if n, from, err := c4.ReadFrom(buf); err != nil || n != 5 || buf[0] != 3 || from.String() != b4.String() {
		t.Errorf("%x from %v, %v", buf[:n], from, err)
	}
	long := make([]byte, 100)
	if n, _, err := c6.ReadFrom(long); err != nil || string(long[8:n]) != "good" {
		t.Errorf("%q, %v", long[8:n], err)
	}
}

// What nobody reads has a bound, and is counted beyond it.
func TestRawSocketBuffersAreBounded(t *testing.T) {
	s := newStack(t, a4)
	c := rawSocket(t, s, a4)
	pkt, err := packet.AppendIP(nil, b4, a4, packet.ICMPv4, 1008)
	if err != nil {
		t.Fatal(err)
	}
	pkt = withChecksum(t, append(pkt, echoOf(true, true, string(make([]byte, 1000)))...))
	fit := messagesLimit / (len(pkt) + queueOverhead)
	for range fit + 10 {
		s.Link().Inject(pkt)
	}
	if got := s.Stats().ICMPOverflow; got != 10 {
		t.Errorf("%d dropped, want 10", got)
	}
	buf := make([]byte, 2000)
	for range fit {
		if _, _, err := c.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
	}
	s.Link().Inject(pkt)
	if _, _, err := c.ReadFrom(buf); err != nil {
		t.Error(err)
	}
}

// Messages that find the link queue full are lost and counted: writing never
// waits.
func TestRawSocketNeverWaits(t *testing.T) {
	s := newStack(t, a4)
	c := rawSocket(t, s, a4)
	message := echoOf(true, false, string(make([]byte, 1000)))
	const more = (queueLimit + queueReserve) / 1000
	for range more {
		if _, err := c.WriteTo(message, ipAddr(b4)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Stats(); got.ICMPLost == 0 || got.ICMPLost >= more {
		t.Errorf("%d of %d messages lost", got.ICMPLost, more)
	}
}

func TestRawSocketErrors(t *testing.T) {
	s := newStack(t, a4)
	for _, host := range []netip.Addr{{}, b4, a6} {
		if _, err := s.ListenICMP(host); err == nil {
			t.Errorf("listen on %v: no error", host)
		}
	}
	c := rawSocket(t, s, netip.IPv4Unspecified())
	six := rawSocket(t, s, netip.IPv6Unspecified())
	message := echoOf(true, false, "")
	for _, tt := range []struct {
		name string
		conn *ICMPConn
		to   net.Addr
		size int
		want error
	}{
		{"no address", c, nil, 8, syscall.EDESTADDRREQ},
		{"another family", c, ipAddr(b6), 8, syscall.EINVAL},
		{"unspecified", c, ipAddr(netip.IPv4Unspecified()), 8, syscall.EINVAL},
		{"too long", c, ipAddr(b4), maxEcho + 9, syscall.EMSGSIZE},
		{"no address of the family", six, ipAddr(b6), 8, ErrNoAddress},
		{"no room for the checksum", six, ipAddr(b6), 3, syscall.EINVAL},
	} {
		if _, err := tt.conn.WriteTo(append(message, make([]byte, tt.size)...)[:tt.size], tt.to); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := c.WriteTo(message, &net.UDPAddr{IP: b4.AsSlice(), Port: 1}); err == nil {
		t.Error("an address with a port: no error")
	}
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, _, err := c.ReadFrom(message); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	done := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(message)
		done <- err
	}()
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	for _, err := range []error{c.Close(), c.SetDeadline(time.Time{})} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
	s.Close()
	if _, _, err := six.ReadFrom(message); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stack is closed: %v", err)
	}
	if _, err := s.ListenICMP(a4); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listen, closed: %v", err)
	}
}
