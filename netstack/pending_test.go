package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// listenPending listens on all addresses of s.
func listenPending(t *testing.T, s *Stack, port uint16) *PendingListener {
	t.Helper()
	p, err := s.ListenPending(netip.AddrPortFrom(netip.Addr{}, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// SVC-53: the peer knows that its connection is accepted when it was completed, and
// not before; then it carries data.
func TestPendingCompletes(t *testing.T) {
	a, b := pair(t)
	p := listenPending(t, b, 80)
	for _, to := range []netip.Addr{b4, b6} {
		dialled := make(chan net.Conn, 1)
		go func() {
			c, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(to, 80))
			if err != nil {
				t.Error(err)
			}
			dialled <- c
		}()
		pending, err := p.AcceptPending()
		if err != nil {
			t.Fatal(err)
		}
		if len(dialled) > 0 || pending.To.Addr() != to {
			t.Fatalf("to %v: the peer knows before it was completed", pending.To)
		}
		c, err := pending.Complete(within(t))
		if err != nil {
			t.Fatal(err)
		}
		peer := <-dialled
		if peer == nil {
			t.Fatal("not connected")
		}
		io.WriteString(c, "hello")
		c.Close()
		if got, err := io.ReadAll(peer); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		peer.Close()
	}
}

// SVC-53: what is refused is reset, as if nobody listened.
func TestPendingRefuses(t *testing.T) {
	a, b := pair(t)
	p := listenPending(t, b, 80)
	go func() {
		if pending, err := p.AcceptPending(); err == nil {
			pending.Refuse()
		}
	}()
	if _, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b4, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want a refusal", err)
	}
}

// SVC-55: a node can dial its own port.
func TestPendingTakesConnectionsOfTheNodeWithItself(t *testing.T) {
	_, b := pair(t)
	p := listenPending(t, b, 80)
	go func() {
		pending, err := p.AcceptPending()
		if err != nil {
			return
		}
		if c, err := pending.Complete(within(t)); err == nil {
			io.WriteString(c, "me")
			c.Close()
		}
	}()
	c, err := b.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "me" {
		t.Errorf("got %q, %v", got, err)
	}
}

// SVC-63, SVC-64: a more specific listener has its connections to itself, and after
// Close the port refuses.
func TestPendingListenerSharesItsPort(t *testing.T) {
	a, b := pair(t)
	p := listenPending(t, b, 80)
	specific := listenTCP(t, b, netip.AddrPortFrom(b4, 80))
	c, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b4, 80))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got, err := specific.Accept(); err != nil {
		t.Error(err)
	} else {
		got.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waits := make(chan error, 1)
	go func() {
		_, err := a.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(b6, 80))
		waits <- err
	}()
	waitFor(t, "a connection to come", func() bool { return len(p.queue) == 1 })
	p.Close()
	if err := <-waits; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection that waited got %v, want a refusal", err)
	}
	if _, err := p.AcceptPending(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("AcceptPending after Close: %v", err)
	}
	if _, err := a.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(b6, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after Close the port answers %v", err)
	}
	if b.links[0].pending.take.Load() != nil {
		t.Error("packets are still looked at")
	}
}

// A handshake that its peer does not finish ends with the ctx of who completes it.
func TestPendingHandshakeEnds(t *testing.T) {
	a, b := newStack(t, a4, a6), newStack(t, b4, b6)
	unplug := join(t, a, b, segmented)
	p := listenPending(t, b, 80)
	go a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b4, 80))
	pending, err := p.AcceptPending()
	if err != nil {
		t.Fatal(err)
	}
	unplug() // nothing more comes of the peer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := pending.Complete(ctx)
		done <- err
	}()
	waitFor(t, "the handshake", func() bool {
		f, ok := flowOf(b.gv.FindTransportEndpoint(protocolOf(b4), tcp.ProtocolNumber, idOf(pending.To, pending.From), nicID))
		return ok && f.Remote == pending.From
	})
	cancel()
	if err := <-done; err == nil {
		t.Error("it was completed")
	}
}
