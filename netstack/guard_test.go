package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/seed94491740/tsnode/packet"
)

// The tests of this file guard what this package relies on in gVisor, so that an
// upgrade that changes it fails here.

// bulk sends size bytes from a to b over dst, with look at every packet of a.
func bulk(t *testing.T, dst netip.Addr, size int, look func(o *packet.Outbound)) {
	t.Helper()
	a, b := newStack(t, a4, a6), newStack(t, b4, b6)
	var mu sync.Mutex
	join(t, a, b, func(t testing.TB, o *packet.Outbound, d *Delivery) {
		var h packet.Header
		h.ParseHead(o.Head, o.Len())
		if src := h.Src.Addr(); src == a4 || src == a6 {
			mu.Lock()
			look(o)
			mu.Unlock()
		}
		segmented(t, o, d)
	})
	client, server := connected(t, a, b, dst)
	go func() { client.Write(make([]byte, size)); client.CloseWrite() }()
	if n, err := io.Copy(io.Discard, server); err != nil || n != int64(size) {
		t.Fatalf("%d of %d bytes, %v", n, size, err)
	}
	if n := a.Stats().TCPRetransmits; n != 0 {
		t.Logf("%d retransmissions; is the machine busy?", n)
	}
	mu.Lock() // look is over
	defer mu.Unlock()
}

// TCP's headers lie in one piece, super-packets are of the size that one sendmsg
// takes, with a partial checksum, and their pieces fit the MTU, which is that of
// SVC-38 (WG-63).
func TestGuardSuperPackets(t *testing.T) {
	for _, dst := range []netip.Addr{b4, b6} {
		largest, cut, want := 0, 0, int(gsoMaxSize(DefaultMTU))
		look := func(o *packet.Outbound) {
			if len(o.Head) < 40 || len(o.Head) > 80 {
				t.Errorf("head of %d bytes", len(o.Head))
			}
			if o.Segment == 0 {
				if o.Len() > DefaultMTU {
					t.Errorf("packet of %d bytes is not to be cut", o.Len())
				}
				return
			}
			cut++
			largest = max(largest, o.Len())
			// gVisor leaves room for SACK blocks that data does not carry.
			if size := len(o.Head) + o.Segment; !o.Partial || size > DefaultMTU || size < DefaultMTU-maxTCPOptions {
				t.Errorf("super-packet with a head of %d bytes and segments of %d; partial checksum: %v", len(o.Head), o.Segment, o.Partial)
			}
			if got, want := checksums(o); got != want {
				t.Errorf("checksum field %#x, want that of the pseudo-header, %#x", got, want)
			}
		}
		// How much may be sent at once is up to the windows of TCP, hence to what else the
		// machine does: with time there comes one that is as large as they may be.
		for sent := 0; sent < 8 && largest < want*3/4; sent++ {
			bulk(t, dst, 16<<20, look)
		}
		if largest > want || largest < want*3/4 {
			t.Errorf("%v: the largest of %d super-packets has %d bytes, want almost %d", dst, cut, largest, want)
		}
	}
}

const maxTCPOptions = 40 // bytes; RFC 9293 section 3.1

// checksums returns the checksum field of a TCP packet, and the sum of its
// pseudo-header.
func checksums(o *packet.Outbound) (field, pseudo uint16) {
	var h packet.Header
	h.ParseHead(o.Head, o.Len())
	return binary.BigEndian.Uint16(o.Head[h.Transport+16:]), packet.PseudoSum(o.Head, h.Proto, o.Len()-h.Transport)
}

// Packets of a connection come in the order of their sequence numbers.
func TestGuardOrder(t *testing.T) {
	var next uint32
	started := false
	bulk(t, b4, 8<<20, func(o *packet.Outbound) {
		payload := o.Len() - len(o.Head)
		if payload == 0 {
			return
		}
		seq := binary.BigEndian.Uint32(o.Head[24:])
		if started && int32(seq-next) > 0 {
			t.Errorf("sequence number %d, want up to %d", seq, next)
		}
		if end := seq + uint32(payload); !started || int32(end-next) > 0 {
			started, next = true, end
		}
	})
}

// A super-packet that is a whole write has PSH, which belongs on the last of its
// pieces only; the tunnel sees to that (WG-63).
func TestGuardPush(t *testing.T) {
	a, b := newStack(t, a4), newStack(t, b4)
	var mu sync.Mutex
	var flags []byte
	join(t, a, b, func(t testing.TB, o *packet.Outbound, d *Delivery) {
		if o.Segment > 0 {
			mu.Lock()
			flags = append(flags, o.Head[33])
			mu.Unlock()
		}
		segmented(t, o, d)
	})
	client, server := connected(t, a, b, b4)
	client.Write(make([]byte, 5000))
	io.ReadFull(server, make([]byte, 5000))
	mu.Lock()
	defer mu.Unlock()
	if len(flags) != 1 || flags[0]&packet.PSH == 0 {
		t.Errorf("a write of 5000 bytes makes super-packets with flags %#x", flags)
	}
}

// What came through the link is taken with any checksum, that of the IPv4 header
// included: the AEAD has checked it, and merged packets have a stale one
// (WG-71).
func TestGuardReceivedChecksums(t *testing.T) {
	for name, at := range map[string]int{"transport": 20 + 16, "IPv4 header": 10} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, b4)
			listenTCP(t, s, netip.AddrPortFrom(b4, 80))
			syn := synPacket(t, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, 80), 1)
			syn[at] ^= 0xff
			s.Link().Inject(syn)
			var h packet.Header
			h.Parse(take(t, s))
			if h.TCPFlags != packet.SYN|packet.ACK {
				t.Errorf("a SYN with a stale checksum is answered by flags %#x", h.TCPFlags)
			}
		})
	}
}

// A merged super-packet larger than the MTU is taken whole.
func TestGuardLargePacketsAreTaken(t *testing.T) {
	s := newStack(t, b4)
	pc := listenUDP(t, s, netip.AddrPortFrom(b4, 0))
	payload := string(make([]byte, 60000))
	s.Link().Inject(udpPacket(t, netip.AddrPortFrom(a4, 9), netip.AddrPortFrom(b4, portOf(pc.LocalAddr())), payload))
	if n, err := pc.Read(make([]byte, 1<<16)); n != len(payload) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// The checksum of a fragmented datagram over IPv6 is right: with transmit
// checksum offload it would be 0 (WG-63).
func TestGuardFragmentsHaveChecksums(t *testing.T) {
	s := newStack(t, a6)
	c := dialUDP(t, s, netip.AddrPortFrom(b6, 9))
	want := bytes.Repeat([]byte("fragment"), 500)
	c.Write(want)
	const ipv6, fragment = 40, 8
	var datagram []byte
	for len(datagram) < 8+len(want) {
		pkt := take(t, s)
		if len(pkt) > DefaultMTU || pkt[6] != 44 {
			t.Fatalf("packet of %d bytes with next header %d", len(pkt), pkt[6])
		}
		datagram = append(datagram, pkt[ipv6+fragment:]...)
	}
	whole, err := packet.AppendIP(nil, a6, b6, packet.UDP, len(datagram))
	if err != nil {
		t.Fatal(err)
	}
	whole = append(whole, datagram...)
	if sum := packet.Sum(datagram, packet.PseudoSum(whole, packet.UDP, len(datagram))); sum != 0xffff || binary.BigEndian.Uint16(datagram[6:]) == 0 {
		t.Errorf("checksum %x, sum %#x", datagram[6:8], sum)
	}
}

// A write that waits at the link holds its connection's lock and nothing else:
// the receive goroutine, with segments of that very connection too, other sockets
// and packets that never wait go on (WG-84).
func TestGuardWaitingWriteHoldsNobodyElseUp(t *testing.T) {
	a, b := newStack(t, a4), newStack(t, b4)
	unplug := join(t, a, b, segmented)
	conn, _ := connected(t, a, b, b4)
	detach := a.Link().Attach() // a drain loop that stands still
	unplug()
	filler := fakePacket(t, 60<<10)
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		for a.Link().push(filler) == nil {
		}
	}()
	eventually(t, func() bool { return waiting(a.Link()) == 1 })
	wrote := make(chan error, 1)
	go func() { _, err := conn.Write([]byte("waits")); wrote <- err }()
	eventually(t, func() bool { return waiting(a.Link()) == 2 })
	local, remote := conn.local.AddrPort(), conn.remote.AddrPort()
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for i := range 100 { // more than the processors of TCP have to do at once
			ack := synPacket(t, remote, local, uint32(i))
			ack[33] = packet.ACK
			a.Link().Inject(withChecksum(t, ack))
			a.Link().Inject(synPacket(t, netip.AddrPortFrom(b4, uint16(i+1)), netip.AddrPortFrom(a4, 9), 1))
		}
		dialUDP(t, a, netip.AddrPortFrom(b4, 9)).Write([]byte("x"))
		listenTCP(t, a, anyPort)
	}()
	select {
	case <-passed:
	case <-time.After(patience):
		t.Error("a waiting write holds up others")
	}
	if n := waiting(a.Link()); n != 2 {
		t.Errorf("%d writes wait, want 2", n)
	}
	detach()
	if err := <-wrote; err != nil {
		t.Errorf("the write that waited: %v", err) // a segment lost, for TCP to repair
	}
	<-filled
}

// A stack that has nothing to do sends nothing: no neighbour or router
// discovery, no multicast reports.
func TestGuardSilence(t *testing.T) {
	s := newStack(t, a4, a6)
	listenTCP(t, s, anyPort)
	listenUDP(t, s, anyPort)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	select {
	case <-s.Link().Ready():
		silent(t, s)
	case <-ctx.Done():
	}
}

// The memory of a reservation is a chunk of a power of two up to 64 KiB, zeroed,
// so a reservation costs by its size and shows nothing of another (WG-72).
func TestGuardChunks(t *testing.T) {
	for n, want := range map[int]int{1: 64, 64: 64, 65: 128, 1300: 2048, 60_000: 65536, 65535: 65536, 70_000: 70_000} {
		v := buffer.NewViewSize(n)
		b := v.AsSlice()
		if len(b) != n || v.Capacity() != want {
			t.Errorf("a view of %d bytes has %d in a chunk of %d, want %d", n, len(b), v.Capacity(), want)
		}
		for i := range b {
			b[i] = 0xff
		}
		v.Release()
		again := buffer.NewViewSize(n)
		if bytes.IndexByte(again.AsSlice(), 0xff) >= 0 {
			t.Errorf("a view of %d bytes shows an old one", n)
		}
		again.Release()
	}
}

// The stack answers echo requests to its own addresses, of both families, and to
// no others (SVC-61).
func TestAnswersPing(t *testing.T) {
	s := newStack(t, a4, a6)
	for _, tt := range []struct {
		src, dst netip.Addr
		proto    packet.Proto
		request  byte
	}{{b4, a4, packet.ICMPv4, 8}, {b6, a6, packet.ICMPv6, 128}} {
		ping := []byte{tt.request, 0, 0, 0, 0x12, 0x34, 0, 1, 'd', 'a', 't', 'a'}
		pkt, err := packet.AppendIP(nil, tt.src, tt.dst, tt.proto, len(ping))
		if err != nil {
			t.Fatal(err)
		}
		pkt = withChecksum(t, append(pkt, ping...))
		s.Link().Inject(pkt)
		reply := take(t, s)
		var h packet.Header
		h.Parse(reply)
		if !h.IsEchoReply(reply) || h.Src.Addr() != tt.dst || h.Dst.Addr() != tt.src || !bytes.HasSuffix(reply, ping[4:]) {
			t.Errorf("answer is %+v: %x", h, reply)
		}
	}
	other, _ := packet.AppendIP(nil, b4, netip.MustParseAddr("100.64.0.99"), packet.ICMPv4, 8)
	s.Link().Inject(withChecksum(t, append(other, 8, 0, 0, 0, 0, 1, 0, 1)))
	silent(t, s)
}

// Our UDP sockets are what gVisor's demultiplexer hands datagrams to.
func TestGuardDemultiplexer(t *testing.T) {
	s := newStack(t, a4)
	pc := listenUDP(t, s, netip.AddrPortFrom(a4, 0))
	ep := s.gv.FindTransportEndpoint(protocolOf(a4), header.UDPProtocolNumber, pc.bound.id(), nicID)
	if ep != stack.TransportEndpoint(pc.in) {
		t.Errorf("the demultiplexer has %v for the socket", ep)
	}
	if n := len(s.gv.RegisteredEndpoints()); n != 1 {
		t.Errorf("%d sockets, want 1", n)
	}
}
