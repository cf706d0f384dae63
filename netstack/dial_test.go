package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/seed94491740/tsnode/packet"
)

// The server closes first, so it keeps the connection in TIME-WAIT. A new SYN
// from the same port must open a new connection at once: a forwarder without a
// listening endpoint would ignore it, and the dial stall for 15 s.
func TestDialAgainIntoTimeWait(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("bye"))
			c.Close()
		}
	}()
	src, dst := netip.AddrPortFrom(a4, 40000), netip.AddrPortFrom(b4, portOf(ln.Addr()))
	id := stack.TransportEndpointID{LocalAddress: toGvisor(b4), LocalPort: dst.Port(), RemoteAddress: toGvisor(a4), RemotePort: src.Port()}
	for i := range 5 {
		began := time.Now()
		var c net.Conn
		var err error
		eventually(t, func() bool { // the client's end frees its port with the last acknowledgement
			c, err = a.dialTCP(within(t), src, dst)
			return !errors.Is(err, syscall.EADDRINUSE)
		})
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
			t.Fatalf("dial %d: %q, %v", i, got, err)
		}
		c.Close()
		eventually(t, func() bool {
			ep, ok := b.gv.FindTransportEndpoint(protocolOf(b4), tcp.ProtocolNumber, id, nicID).(*tcp.Endpoint)
			return ok && ep.EndpointState() == tcp.StateTimeWait
		})
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("dial %d stalled for %v", i, took)
		}
	}
}

// eventually waits until what becomes true without an event does.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not come true")
		}
	}
}

func TestDialItself(t *testing.T) {
	s := newStack(t, a4, a6)
	for _, addr := range []netip.Addr{a4, a6} {
		client, server := connected(t, s, s, addr)
		go func() { server.Write([]byte("hello")); server.Close() }()
		if got, err := io.ReadAll(client); err != nil || string(got) != "hello" {
			t.Errorf("%v: got %q, %v", addr, got, err)
		}
	}
	silent(t, s) // nothing of it leaves the node (SVC-55)
}

// What a dial that cannot work returns. An address of the node without a listener
// refuses (SVC-52).
func TestDialErrors(t *testing.T) {
	a, _ := pair(t)
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	nowhere := netip.MustParseAddr("100.64.9.9")
	only4 := newStack(t, a4)
	for _, tt := range []struct {
		name     string
		from     *Stack
		ctx      context.Context
		src      netip.Addr
		dst      netip.AddrPort
		want     error
		timedOut bool
	}{
		{"nobody listens", a, within(t), netip.Addr{}, netip.AddrPortFrom(b4, 9), syscall.ECONNREFUSED, false},
		{"nobody listens, IPv6", a, within(t), netip.Addr{}, netip.AddrPortFrom(b6, 9), syscall.ECONNREFUSED, false},
		{"nobody answers", a, short, netip.Addr{}, netip.AddrPortFrom(nowhere, 9), context.DeadlineExceeded, true},
		{"no address of the family", only4, within(t), netip.Addr{}, netip.AddrPortFrom(b6, 9), ErrNoAddress, false},
		{"no address at all", newStack(t), within(t), netip.Addr{}, netip.AddrPortFrom(b4, 9), ErrNoAddress, false},
		{"from a foreign address", a, within(t), b4, netip.AddrPortFrom(b4, 9), syscall.EADDRNOTAVAIL, false},
		{"from the other family", a, within(t), a6, netip.AddrPortFrom(b4, 9), syscall.EADDRNOTAVAIL, false},
		{"to no address", a, within(t), netip.Addr{}, netip.AddrPort{}, syscall.EADDRNOTAVAIL, false},
		{"to port 0", a, within(t), netip.Addr{}, netip.AddrPortFrom(b4, 0), syscall.EADDRNOTAVAIL, false},
	} {
		c, err := tt.from.DialTCP(tt.ctx, tt.src, tt.dst)
		if c != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			continue
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" || op.Net != "tcp" || op.Timeout() != tt.timedOut {
			t.Errorf("%s: %#v", tt.name, err)
		}
	}
}

// An ICMP message that the destination is unreachable, as the pipeline sends for
// what has no route, ends a dial at once.
func TestDialUnreachable(t *testing.T) {
	s := newStack(t, a4, a6)
	for _, dst := range []netip.Addr{b4, b6} {
		dialled := make(chan error, 1)
		go func() {
			_, err := s.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(dst, 80))
			dialled <- err
		}()
		syn := take(t, s)
		var h packet.Header
		h.Parse(syn)
		s.Link().Inject(h.AppendUnreachable(nil, syn))
		if err := <-dialled; !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("dial %v: %v, want that it is unreachable", dst, err)
		}
	}
}

// Guard: the segment size that a SYN announces fits the MTU (SVC-48).
func TestGuardMSS(t *testing.T) {
	for _, mtu := range []int{1280, 1420, 9000} {
		s := newStackOf(t, Config{MTU: mtu}, a4, a6)
		for dst, headers := range map[netip.Addr]int{b4: 20 + 20, b6: 40 + 20} {
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { s.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(dst, 80)) })
			syn := take(t, s)
			options := header.ParseSynOptions(syn[headers:], false)
			if int(options.MSS) != mtu-headers || !options.SACKPermitted || options.WS < 0 {
				t.Errorf("MTU %d to %v: options %+v, want MSS %d, SACK and a window scale", mtu, dst, options, mtu-headers)
			}
			cancel()
			wg.Wait()
		}
	}
}
