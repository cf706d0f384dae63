package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

const patience = 20 * time.Second // for what takes milliseconds

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dialTCP connects or fails the test.
func dialTCP(t testing.TB, s *Stack, dst netip.AddrPort) *Conn {
	t.Helper()
	c, err := s.DialTCP(within(t), netip.Addr{}, dst)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c.(*Conn)
}

func listenTCP(t testing.TB, s *Stack, addr netip.AddrPort) net.Listener {
	t.Helper()
	ln, err := s.ListenTCP(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

var anyPort = netip.AddrPortFrom(netip.Addr{}, 0)

func portOf(a net.Addr) uint16 {
	switch a := a.(type) {
	case *net.TCPAddr:
		return uint16(a.Port)
	case *net.UDPAddr:
		return uint16(a.Port)
	}
	return 0
}

// Both directions at once, half-closed at the end, over both families (SVC-56).
func TestTCPTransfersBothWays(t *testing.T) {
	a, b := pair(t)
	for _, dst := range []netip.Addr{b4, b6} {
		t.Run(dst.String(), func(t *testing.T) {
			ln := listenTCP(t, b, anyPort)
			there, back := make([]byte, 3<<20), make([]byte, 2<<20)
			rand.Read(there)
			rand.Read(back)
			served := make(chan error, 1)
			go func() { served <- exchange(ln, back, there) }()
			c := dialTCP(t, a, netip.AddrPortFrom(dst, portOf(ln.Addr())))
			if err := swap(c, there, back); err != nil {
				t.Error("dialer:", err)
			}
			if err := <-served; err != nil {
				t.Error("listener:", err)
			}
		})
	}
}

func exchange(ln net.Listener, send, want []byte) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	return swap(c.(*Conn), send, want)
}

// swap sends, half-closes, and wants exactly want from the other end.
func swap(c *Conn, send, want []byte) error {
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(send)
		wrote <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got %d bytes, want %d, or other ones", len(got), len(want))
	}
	return <-wrote
}

func TestManyConnectionsAtOnce(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			c, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b4, portOf(ln.Addr())))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			want := bytes.Repeat([]byte{byte(i)}, 10_000)
			go c.Write(want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestRefusedWhenNobodyListens(t *testing.T) {
	a, _ := pair(t)
	_, err := a.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b4, 9))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want ECONNREFUSED", err)
	}
}

// Once the listener is gone its port refuses again; its connections go on
// (SVC-64).
func TestListenerCloseEndsAcceptOnly(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	c := dialTCP(t, a, dst)
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	waiting := make(chan error, 1)
	go func() { _, err := ln.Accept(); waiting <- err }()
	ln.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v, want net.ErrClosed", err)
	}
	if _, err := a.DialTCP(within(t), netip.Addr{}, dst); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Close: %v, want ECONNREFUSED", err)
	}
	go s.Write([]byte("still here"))
	got := make([]byte, 10)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "still here" {
		t.Errorf("got %q, %v", got, err)
	}
}

// The server closes first, so it keeps the connection in TIME-WAIT; a new dial
// from the same port must not stall. Real endpoints take it as RFC 9293 says.
func TestDialAgainAfterServerClosedFirst(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	for i := range 300 {
		began := time.Now()
		c, err := a.DialTCP(within(t), netip.Addr{}, dst)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		io.ReadAll(c) // until the server's FIN
		c.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("dial %d stalled for %v", i, took)
		}
	}
}

func TestDialItself(t *testing.T) {
	s := newStack(t, a4)
	ln := listenTCP(t, s, anyPort)
	go exchange(ln, []byte("hello"), nil)
	c := dialTCP(t, s, netip.AddrPortFrom(a4, portOf(ln.Addr())))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDialWithoutAddressOfTheFamily(t *testing.T) {
	s := newStack(t, a4)
	if _, err := s.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(b6, 80)); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v, want ErrNoAddress", err)
	}
}

// A dial that nobody answers ends with its context.
func TestDialEndsWithContext(t *testing.T) {
	s := newStack(t, a4)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := s.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(b4, 80))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestUDPBothFamiliesOnOneSocket(t *testing.T) {
	a, b := pair(t)
	pc, err := b.ListenUDP(anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	for _, dst := range []netip.Addr{b4, b6} {
		c, err := a.DialUDP(within(t), netip.AddrPort{}, netip.AddrPortFrom(dst, portOf(pc.LocalAddr())))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		for _, size := range []int{0, 1, 1200, 4000} { // the last one is fragmented
			want := bytes.Repeat([]byte("x"), size)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5000)
			n, err := c.Read(got)
			if want := min(size, 2000); err != nil || n != want {
				t.Errorf("%v: echo of %d bytes: %d, %v; want %d", dst, size, n, err, want)
			}
		}
		if got := c.RemoteAddr().String(); got != netip.AddrPortFrom(dst, portOf(pc.LocalAddr())).String() {
			t.Errorf("remote address %s", got)
		}
		c.Close()
		if _, err := c.Write(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
	}
}

// Nobody drains the link: writes of UDP must end all the same.
func TestUDPWriteNeverWaits(t *testing.T) {
	s := newStack(t, a4)
	c, err := s.DialUDP(within(t), netip.AddrPort{}, netip.AddrPortFrom(b4, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 1200)
	for range 5000 {
		if n, err := c.Write(b); n != len(b) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if got := s.Stats(); got.UDPLost == 0 || got.LinkDropped < got.UDPLost {
		t.Error("6 MB fit a queue of 1.25 MiB")
	}
}

func TestDeadlineIsANetTimeout(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

// A reset shows as one.
func TestLingerZeroResets(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.(*Conn).SetLinger(0)
	s.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want ECONNRESET", err)
	}
}

// Close returns although the link has lost its reader in the middle of a
// transfer, and everything that waits ends.
func TestCloseWithoutLinkReader(t *testing.T) {
	a, b := newStack(t, a4), newStack(t, b4)
	ctx, cut := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { carry(ctx, t, a.Link(), b.Link()) })
	wg.Go(func() { carry(ctx, t, b.Link(), a.Link()) })
	ln := listenTCP(t, b, anyPort)
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := ln.Accept(); err == nil {
			accepted <- c
		}
	}()
	c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	s := <-accepted
	wrote := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				wrote <- err
				return
			}
		}
	}()
	io.ReadFull(s, make([]byte, 1<<20))
	cut()
	wg.Wait()
	done := make(chan struct{})
	go func() { a.Close(); b.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Close hangs")
	}
	if err := <-wrote; err == nil {
		t.Error("write goes on after Close")
	}
}

func TestSetAddressesReplaces(t *testing.T) {
	a, b := pair(t)
	ln := listenTCP(t, b, anyPort)
	other := netip.MustParseAddr("100.64.0.9")
	if err := b.SetAddresses([]netip.Addr{other, b6}); err != nil {
		t.Fatal(err)
	}
	dialTCP(t, a, netip.AddrPortFrom(other, portOf(ln.Addr())))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(b4, portOf(ln.Addr()))); err == nil {
		t.Error("the old address still answers")
	}
}

// The stack answers echo requests to its own addresses (SVC-61).
func TestAnswersPing(t *testing.T) {
	s := newStack(t, a4)
	detach := s.Link().Attach()
	defer detach()
	ping := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'd', 'a', 't', 'a'}
	sum := ^packet.Sum(ping, 0)
	ping[2], ping[3] = byte(sum>>8), byte(sum)
	pkt, err := packet.AppendIP(nil, b4, a4, packet.ICMPv4, len(ping))
	if err != nil {
		t.Fatal(err)
	}
	s.Link().Inject(append(pkt, ping...))
	out := make([]packet.Outbound, 1)
	for s.Link().Next(out) == 0 {
		select {
		case <-s.Link().Ready():
		case <-within(t).Done():
			t.Fatal("no answer")
		}
	}
	reply := cut(t, &out[0])[0]
	var h packet.Header
	h.Parse(reply)
	if !h.IsEchoReply(reply) || h.Dst.Addr() != b4 || !bytes.HasSuffix(reply, []byte("data")) {
		t.Errorf("answer is %+v: %x", h, reply)
	}
	s.Link().Done(1)
}
