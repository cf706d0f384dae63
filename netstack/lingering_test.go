package netstack

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/seed94491740/tsnode/packet"
)

// short makes one connection from a to ln on b, closed first by b if theirs. It
// returns the ends of it.
func short(t testing.TB, a *Stack, src netip.AddrPort, ln net.Listener, b *Stack, theirs bool) (client, server *tcp.Endpoint) {
	t.Helper()
	var dialled net.Conn
	eventually(t, func() (ok bool) {
		var err error
		dialled, err = a.dialTCP(t.Context(), src, netip.AddrPortFrom(b4, portOf(ln.Addr())))
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) { // the end before frees its port with the last acknowledgement
			t.Fatal(err)
		}
		return err == nil
	})
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	first, second := dialled, accepted
	if theirs {
		first, second = second, first
	}
	first.(*Conn).CloseWrite()
	if _, err := second.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want that the other end has closed", err)
	}
	second.Close()
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want that the other end has closed", err)
	}
	first.Close()
	return dialled.(*Conn).ep.(*tcp.Endpoint), accepted.(*Conn).ep.(*tcp.Endpoint)
}

// Whichever end closes first, what stays of closed connections is bounded: the
// oldest TIME-WAIT ends when there are too many. No dial stalls meanwhile.
func TestTimeWaitsAreBounded(t *testing.T) {
	for _, theirs := range []bool{false, true} {
		a, b := pair(t)
		ln := listenTCP(t, b, anyPort)
		closer := a
		if theirs {
			closer = b
		}
		const limit, more = 20, 30
		closer.lingering.limit = limit
		for range limit + more {
			short(t, a, netip.AddrPort{}, ln, b, theirs)
		}
		eventually(t, func() bool { return len(endpointsIn(closer, tcp.StateTimeWait)) <= limit })
		if n := len(closer.lingering.closed); n > limit {
			t.Errorf("%d connections in the queue, want at most %d", n, limit)
		}
		if n := closer.Stats().TCPLingerCut; n < more/2 || n > more {
			t.Errorf("%d TIME-WAITs were cut short, want about %d", n, more)
		}
	}
}

// A TIME-WAIT that is cut short ends without a segment, as RFC 9293 section 3.10.5
// has it: its peer has nothing left that an RST could tell.
func TestCutTimeWaitIsSilent(t *testing.T) {
	a, b := newStack(t, a4), newStack(t, b4)
	var resets atomic.Int64
	join(t, a, b, func(t testing.TB, o *packet.Outbound, d *Delivery) {
		var h packet.Header
		if h.Parse(o.Head); header.TCP(o.Head[h.Transport:]).Flags().Contains(header.TCPFlagRst) {
			resets.Add(1)
		}
		segmented(t, o, d)
	})
	ln := listenTCP(t, b, anyPort)
	a.lingering.limit = 2
	for range 10 {
		short(t, a, netip.AddrPort{}, ln, b, false) // sends after what the one before has sent
	}
	if n := resets.Load(); n > 0 || a.Stats().TCPLingerCut == 0 {
		t.Errorf("%d segments with RST for %d connections cut short, want none for some", n, a.Stats().TCPLingerCut)
	}
}

// endpointsIn returns the TCP endpoints of s in a state.
func endpointsIn(s *Stack, state tcp.EndpointState) (in []*tcp.Endpoint) {
	for _, e := range s.gv.RegisteredEndpoints() {
		if e, ok := e.(*tcp.Endpoint); ok && e.EndpointState() == state {
			in = append(in, e)
		}
	}
	return in
}

// A connection that still has data to send is not cut short, however many are
// closed after it.
func TestLingeringDataIsSent(t *testing.T) {
	s, b := pair(t)
	client, server := connected(t, s, b, b4)
	const size = 256 << 10
	if _, err := client.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	client.Close() // the server has not read yet: it lingers in FIN-WAIT
	e := client.ep.(*tcp.Endpoint)
	for range 3 * s.lingering.limit {
		for _, over := range s.lingering.push(e) {
			if over != nil && over.EndpointState() != tcp.StateTimeWait {
				t.Fatalf("a connection in %v was to be cut short", over.EndpointState())
			}
		}
	}
	if n, err := io.Copy(io.Discard, server); err != nil || n != size {
		t.Errorf("read %d bytes and %v, want %d", n, err, size)
	}
}

// What a SYN meets that comes from the port of a connection in TIME-WAIT: beyond
// the last sequence number it opens a new connection at once, as RFC 1122 section
// 4.2.2.13 allows; before it, it is taken for an old duplicate and not answered.
func TestSYNIntoTimeWait(t *testing.T) {
	const port = 40000
	for _, tt := range []struct {
		name  string
		ahead uint32 // of the sequence number that the server expects
		opens bool
	}{
		{"beyond the last", 1, true},
		{"far beyond the last", 1 << 30, true},
		{"at the last", 0, false},
		{"an old duplicate", 1<<32 - 1000, false},
	} {
		a, b := newStack(t, a4), newStack(t, b4)
		var expects atomic.Uint32 // what the server acknowledged last
		unplug := join(t, a, b, func(t testing.TB, o *packet.Outbound, d *Delivery) {
			var h packet.Header
			if h.Parse(o.Head); h.Dst.Port() == port {
				expects.Store(binary.BigEndian.Uint32(o.Head[h.Transport+8:]))
			}
			segmented(t, o, d)
		})
		ln := listenTCP(t, b, anyPort)
		src, dst := netip.AddrPortFrom(a4, port), netip.AddrPortFrom(b4, portOf(ln.Addr()))
		_, server := short(t, a, src, ln, b, true)
		eventually(t, func() bool {
			return server.EndpointState() == tcp.StateTimeWait && len(a.gv.RegisteredEndpoints()) == 0
		})
		unplug()

		syns := []uint32{expects.Load() + tt.ahead}
		if !tt.opens {
			syns = append(syns, expects.Load()+1) // shows that the one before was not answered
		}
		for _, seq := range syns {
			b.Link().Inject(synPacket(t, src, dst, seq))
		}
		want := syns[len(syns)-1] + 1
		answer := header.TCP(take(t, b)[header.IPv4MinimumSize:])
		if answer.Flags() != header.TCPFlagSyn|header.TCPFlagAck || answer.AckNumber() != want {
			t.Errorf("%s: answered with %v of %d, want SYN and ACK of %d", tt.name, answer.Flags(), answer.AckNumber(), want)
		}
	}
}
