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
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
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

// connected returns both ends of a connection from a to b.
func connected(t testing.TB, a, b *Stack, dst netip.Addr) (client, server *Conn) {
	t.Helper()
	ln := listenTCP(t, b, anyPort)
	client = dialTCP(t, a, netip.AddrPortFrom(dst, portOf(ln.Addr())))
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return client, c.(*Conn)
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

// TestConnConformance runs the suite that package net's own connections pass.
func TestConnConformance(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, err := New(Config{})
		if err != nil {
			return nil, nil, nil, err
		}
		b, err := New(Config{})
		if err != nil {
			return nil, nil, nil, err
		}
		if err := errors.Join(a.SetAddresses([]netip.Addr{a4}), b.SetAddresses([]netip.Addr{b4})); err != nil {
			return nil, nil, nil, err
		}
		unplug := join(t, a, b, segmented)
		ln, err := b.ListenTCP(netip.AddrPortFrom(b4, 0))
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = a.DialTCP(context.Background(), netip.Addr{}, netip.AddrPortFrom(b4, portOf(ln.Addr())))
		if err != nil {
			return nil, nil, nil, err
		}
		c2, err = ln.Accept()
		stop = func() {
			c1.Close()
			c2.Close()
			ln.Close()
			unplug()
			a.Close()
			b.Close()
		}
		return c1, c2, stop, err
	})
}

// Both directions at once, half-closed at the end, over both families and both
// ways to deliver (SVC-56).
func TestTCPTransfersBothWays(t *testing.T) {
	for name, how := range map[string]cable{"segmented": segmented, "merged": merged} {
		a, b := newStack(t, a4, a6), newStack(t, b4, b6)
		join(t, a, b, how)
		for _, dst := range []netip.Addr{b4, b6} {
			t.Run(name+"/"+dst.String(), func(t *testing.T) {
				client, server := connected(t, a, b, dst)
				there, back := make([]byte, 3<<20), make([]byte, 2<<20)
				rand.Read(there)
				rand.Read(back)
				served := make(chan error, 1)
				go func() { served <- swap(server, back, there) }()
				if err := swap(client, there, back); err != nil {
					t.Error("dialer:", err)
				}
				if err := <-served; err != nil {
					t.Error("listener:", err)
				}
			})
		}
	}
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

// A reply that is sent after the other side has finished arrives, whichever side
// finishes first (SVC-53).
func TestHalfCloseReplyArrives(t *testing.T) {
	a, b := pair(t)
	for _, serverFirst := range []bool{false, true} {
		first, second := connected(t, a, b, b4)
		if serverFirst {
			first, second = second, first
		}
		first.Write([]byte("question"))
		if err := first.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(second); err != nil || string(got) != "question" {
			t.Fatalf("got %q, %v", got, err)
		}
		reply := bytes.Repeat([]byte("reply"), 100_000)
		go func() { second.Write(reply); second.Close() }()
		if got, err := io.ReadAll(first); err != nil || !bytes.Equal(got, reply) {
			t.Errorf("server first: %v; got %d bytes of %d, %v", serverFirst, len(got), len(reply), err)
		}
		if _, err := first.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v, want EPIPE", err)
		}
	}
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

// Writes of several goroutines do not mix, as package net has it.
func TestWritesDoNotMix(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	const writers, size = 4, 3 << 20 // more than the send buffer
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() { client.Write(bytes.Repeat([]byte{byte('a' + i)}, size)) })
	}
	go func() { wg.Wait(); client.CloseWrite() }()
	got, err := io.ReadAll(server)
	if err != nil || len(got) != writers*size {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	for i := 0; i < len(got); i += size {
		if part := got[i : i+size]; bytes.Count(part, part[:1]) != size {
			t.Fatalf("the write at %d is mixed with another", i)
		}
	}
}

// Deadlines are those of package net: past ones count at once, later ones may be
// moved while something waits, and they can be lifted.
func TestDeadlines(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	server.Write([]byte("x"))
	client.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := client.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	client.SetReadDeadline(time.Time{})
	if n, err := client.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("after lifting the deadline: %d, %v", n, err)
	}
	got := make(chan error, 1)
	client.SetReadDeadline(time.Now().Add(time.Hour))
	go func() { _, err := client.Read(make([]byte, 1)); got <- err }()
	client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline moved while waiting: %v", err)
	}
	var n int
	go func() {
		var err error
		n, err = client.Write(make([]byte, 64<<20))
		got <- err
	}()
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil { // the write is under way
		t.Fatal(err)
	}
	client.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("write that nobody reads: %d, %v", n, err)
	}
}

// A reset shows as one, on both ends of a connection that is in use.
func TestLingerZeroResets(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	server.SetLinger(0)
	server.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want ECONNRESET", err)
	}
	if _, err := client.Write(make([]byte, 1)); err == nil {
		t.Error("write to a reset connection succeeds")
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v, want net.ErrClosed", err)
	}
	for name, err := range map[string]error{
		"close again": server.Close(), "close write": server.CloseWrite(), "deadline": server.SetDeadline(time.Time{}),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want net.ErrClosed", name, err)
		}
	}
}

// CloseRead ends reading, and only that.
func TestCloseRead(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	if err := client.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v, want EOF", err)
	}
	client.Write([]byte("still"))
	client.CloseWrite()
	if got, err := io.ReadAll(server); err != nil || string(got) != "still" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A connection over IPv4 to a listener of both families shows IPv4 addresses.
func TestConnAddresses(t *testing.T) {
	a, b := pair(t)
	for _, tt := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		client, server := connected(t, a, b, tt[1])
		local, remote := client.LocalAddr().(*net.TCPAddr).AddrPort(), client.RemoteAddr().(*net.TCPAddr).AddrPort()
		if local.Addr() != tt[0] || remote.Addr() != tt[1] || local.Port() == 0 || remote.Port() == 0 {
			t.Errorf("client is %v to %v, want %v to %v", local, remote, tt[0], tt[1])
		}
		if server.LocalAddr().String() != remote.String() || server.RemoteAddr().String() != local.String() {
			t.Errorf("server is %v to %v, client %v to %v", server.LocalAddr(), server.RemoteAddr(), local, remote)
		}
	}
}

// The options that callers of package net know are taken.
func TestConnOptions(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	for name, err := range map[string]error{
		"keepalive": client.SetKeepAlive(true), "period": client.SetKeepAlivePeriod(time.Minute),
		"delay": client.SetNoDelay(false), "linger": client.SetLinger(-1),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if client.ep.SocketOptions().GetDelayOption() != true || server.ep.SocketOptions().GetDelayOption() {
		t.Error("Nagle's algorithm is on where it was not asked for, or off where it was")
	}
	if !client.ep.SocketOptions().GetKeepAlive() {
		t.Error("keepalive is off")
	}
}
