package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A stream is the two ends of a connection.
type stream struct {
	client, server *tcpConn
	listener       net.Listener
}

// connect dials from a to b, which listens at port 80.
func connect(t *testing.T, a, b *Host, address string) stream {
	t.Helper()
	l, err := b.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return stream{c.(*tcpConn), s.(*tcpConn), l}
}

func connectDirect(t *testing.T, n *Internet, link Conditions) (s stream, a, b *Host) {
	t.Helper()
	a, b = n.AddHost("a", HostConfig{Link: link}), n.AddHost("b", HostConfig{})
	return connect(t, a, b, at(b, 80).String()), a, b
}

func (s stream) close() {
	s.client.Close()
	s.server.Close()
	s.listener.Close()
}

// waiting returns how many bytes from client to server have not been read.
func (s stream) waiting() int {
	n := s.client.host.net
	n.acquire()
	defer n.release()
	return s.server.in.len() + s.client.out.len()
}

// expectNoConns fails unless the hosts have no connection and no listener.
func expectNoConns(t *testing.T, hosts ...*Host) {
	t.Helper()
	for _, h := range hosts {
		h.net.acquire()
		conns, listeners := len(h.tcp), len(h.listeners)
		h.net.release()
		if conns+listeners != 0 {
			t.Errorf("%s has %d connections and %d listeners left", h.name, conns, listeners)
		}
	}
}

// transfer sends size random bytes and fails unless they arrive.
func transfer(t *testing.T, from, to net.Conn, size int) {
	t.Helper()
	sent := make(chan error, 1)
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	go func() {
		_, err := from.Write(data)
		sent <- err
	}()
	want, got := fnv.New64(), fnv.New64()
	want.Write(data)
	if _, err := io.CopyN(got, to, int64(size)); err != nil {
		t.Fatalf("receive: %v", err)
	}
	if err := <-sent; err != nil {
		t.Fatalf("send: %v", err)
	}
	if !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		t.Fatal("the stream has changed on its way")
	}
}

// TestStream: bytes arrive unchanged and in order over any link that does not
// lose all.
func TestStream(t *testing.T) {
	for name, link := range map[string]Conditions{
		"ideal":     {},
		"delay":     {Delay: 50 * time.Millisecond},
		"loss":      {Delay: 20 * time.Millisecond, Loss: 0.05},
		"reorder":   {Delay: 20 * time.Millisecond, Reorder: 0.1, ReorderBy: 30 * time.Millisecond},
		"bandwidth": {Delay: 20 * time.Millisecond, Bandwidth: 1 << 20},
		"all":       {Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.02, Reorder: 0.02, ReorderBy: 10 * time.Millisecond, Bandwidth: 4 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *Internet) {
				s, a, b := connectDirect(t, n, link)
				defer s.close()
				start := time.Now()
				const size = 4 << 20
				transfer(t, s.client, s.server, size)
				t.Logf("%d bytes took %v", size, time.Since(start))
				transfer(t, s.server, s.client, size)
				if link == (Conditions{}) && time.Since(start) != 0 {
					t.Errorf("took %v without delay", time.Since(start))
				}
				if link.Bandwidth > 0 && time.Since(start) < 2*transferTime(size, link.Bandwidth) {
					t.Errorf("took %v at %d bytes a second", time.Since(start), link.Bandwidth)
				}
				s.close()
				time.Sleep(10 * time.Minute) // until nothing is to be said again
				expectNoConns(t, a, b)
			})
		})
	}
}

func TestHalfClose(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		s, _, _ := connectDirect(t, n, Conditions{Delay: time.Millisecond})
		defer s.close()
		fmt.Fprint(s.client, "question")
		if err := s.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(s.server); string(b) != "question" || err != nil {
			t.Errorf("server read %q, %v", b, err)
		}
		if _, err := s.client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v, want EPIPE", err)
		}
		fmt.Fprint(s.server, "answer")
		s.server.Close()
		if b, err := io.ReadAll(s.client); string(b) != "answer" || err != nil {
			t.Errorf("client read %q, %v", b, err)
		}
	})
}

// TestBackpressure: a writer waits for its reader once both buffers are full,
// and goes on when there is room.
func TestBackpressure(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		s, _, _ := connectDirect(t, n, Conditions{Delay: time.Millisecond})
		defer s.close()
		wrote := make(chan int, 1)
		go func() {
			k, _ := s.client.Write(make([]byte, 4*streamBuffer))
			wrote <- k
		}()
		time.Sleep(time.Hour) // probes of the closed window included
		select {
		case <-wrote:
			t.Fatal("the writer did not wait")
		default:
		}
		if got := s.waiting(); got != 2*streamBuffer {
			t.Errorf("%d bytes wait, want %d", got, 2*streamBuffer)
		}
		if _, err := io.CopyN(io.Discard, s.server, 4*streamBuffer); err != nil {
			t.Fatal(err)
		}
		if k := <-wrote; k != 4*streamBuffer {
			t.Errorf("%d bytes were written", k)
		}
	})
}

func TestRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a := n.AddHost("a", HostConfig{Link: Conditions{Delay: 10 * time.Millisecond}})
		b := n.AddHost("b", HostConfig{})
		start := time.Now()
		_, err := a.Dial(t.Context(), "tcp", at(b, 80).String())
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) != 20*time.Millisecond {
			t.Errorf("closed port: %v after %v, want ECONNREFUSED after 20ms", err, time.Since(start))
		}
		if _, err := a.Dial(t.Context(), "tcp", "127.0.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed port of loopback: %v", err)
		}
		a.Unplug()
		if _, err := a.Dial(t.Context(), "tcp", at(b, 80).String()); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("without network: %v, want ENETUNREACH", err)
		}
	})
}

// TestDialTimeout: a connection request that nobody answers ends with the
// context, or as in Linux after 127 s.
func TestDialTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a := n.AddHost("a", HostConfig{})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, "tcp", "198.18.99.99:80"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want the context's error after 1s", err, time.Since(start))
		}
		start = time.Now()
		if _, err := a.Dial(t.Context(), "tcp", "198.18.99.99:80"); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start).Round(time.Second) != 127*time.Second {
			t.Errorf("%v after %v, want ETIMEDOUT after 127s", err, time.Since(start))
		}
		expectNoConns(t, a)
	})
}

// TestBlackHole: a cut path stalls a stream until it heals, or for some 15
// minutes if something has been sent, for 150 s of keep-alive probes if not.
func TestBlackHole(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		s, a, _ := connectDirect(t, n, Conditions{Delay: 10 * time.Millisecond})
		defer s.close()
		transfer(t, s.client, s.server, 1000)
		a.SetLink(Conditions{Down: true})
		fmt.Fprint(s.client, "later")
		time.Sleep(time.Minute)
		a.SetLink(Conditions{Delay: 10 * time.Millisecond})
		b := make([]byte, 5)
		if _, err := io.ReadFull(s.server, b); err != nil || string(b) != "later" {
			t.Fatalf("after the path was healed: %q, %v", b, err)
		}
		time.Sleep(time.Minute)
		a.SetLink(Conditions{Down: true})
		start := time.Now()
		fmt.Fprint(s.client, "never")
		done := make(chan time.Duration, 1)
		go func() {
			_, err := s.server.Read(b)
			if !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("server, idle: %v, want ETIMEDOUT", err)
			}
			done <- time.Since(start)
		}()
		if _, err := s.client.Read(b); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("client: %v, want ETIMEDOUT", err)
		}
		if d := time.Since(start); d < 13*time.Minute || d > 32*time.Minute {
			t.Errorf("the client gave up after %v", d)
		}
		if d := <-done; d < 2*time.Minute || d > 3*time.Minute {
			t.Errorf("the server gave up after %v", d)
		}
	})
}

func TestDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		s, _, _ := connectDirect(t, n, Conditions{})
		defer s.close()
		start := time.Now()
		s.client.SetReadDeadline(start.Add(time.Second))
		_, err := s.client.Read(make([]byte, 1))
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		s.client.SetWriteDeadline(time.Now().Add(time.Second))
		k, err := s.client.Write(make([]byte, 3*streamBuffer))
		if !errors.Is(err, os.ErrDeadlineExceeded) || k != 2*streamBuffer {
			t.Errorf("write: %d bytes, %v", k, err)
		}
		s.client.SetDeadline(time.Time{})
		fmt.Fprint(s.server, "x")
		if k, err := s.client.Read(make([]byte, 1)); k != 1 || err != nil {
			t.Errorf("read without deadline: %d, %v", k, err)
		}
		go func() { // in the past: wakes a reader
			time.Sleep(time.Second)
			s.client.SetReadDeadline(time.Unix(1, 0))
		}()
		if _, err := s.client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		s, a, b := connectDirect(t, n, Conditions{Delay: time.Millisecond})
		done := make(chan error)
		go func() {
			_, err := s.client.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		s.client.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a reader of what is closed: %v", err)
		}
		if err := s.client.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
		if _, err := s.server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the other side: %v, want EOF", err)
		}
		// nobody reads there any more
		fmt.Fprint(s.server, "x")
		time.Sleep(time.Second)
		if _, err := s.server.Write([]byte("y")); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to what is closed: %v", err)
		}
		s.close()
		expectNoConns(t, a, b)

		s = connect(t, a, b, at(b, 80).String())
		fmt.Fprint(s.client, "unread")
		time.Sleep(time.Second)
		s.server.Close() // with data unread: reset
		time.Sleep(time.Second)
		if _, err := s.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("closed with data unread: %v, want ECONNRESET", err)
		}
		s.close()
	})
}

func TestListen(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := n.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{})
		l, err := b.Listen(t.Context(), "tcp4", at(b, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		if addr := netip.MustParseAddrPort(l.Addr().String()); addr.Addr() != b.Addr4() || addr.Port() == 0 {
			t.Errorf("listens at %v", addr)
		}
		if _, err := b.Listen(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("twice at one address: %v", err)
		}
		for _, bad := range []string{"", "80", ":http", "name.example:80", "192.0.2.1:80"} {
			if _, err := b.Listen(t.Context(), "tcp", bad); err == nil {
				t.Errorf("listens at %q", bad)
			}
		}
		if _, err := b.Listen(t.Context(), "unix", "x"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("network unix: %v", err)
		}
		// connections that nobody accepts
		c, err := a.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection of a listener that was closed: %v", err)
		}
		c.Close()
		local, err := b.Listen(t.Context(), "tcp", "127.0.0.1:90")
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		if _, err := a.Dial(t.Context(), "tcp", at(b, 90).String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("listener of loopback, from outside: %v", err)
		}
		own, err := b.Dial(t.Context(), "tcp", "localhost:90")
		if err != nil {
			t.Fatal(err)
		}
		own.Close()
	})
}

// TestStreamThroughNAT: outward only, and a reboot of the router breaks it if
// ports are random.
func TestStreamThroughNAT(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		home := n.AddRouter("home", RouterConfig{NAT: Symmetric, Link: Conditions{NoUDP: true, Delay: 5 * time.Millisecond}})
		a, b := home.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{})
		s := connect(t, a, b, at(b, 80).String())
		defer s.close()
		transfer(t, s.client, s.server, 100000)
		transfer(t, s.server, s.client, 100000)
		if from := s.server.tuple.remote.Addr(); from != home.Outer() {
			t.Errorf("seen as %v", from)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Dial(ctx, "tcp", netip.AddrPortFrom(home.Outer(), 80).String()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("into a NAT: %v", err)
		}
		home.Reboot()
		fmt.Fprint(s.client, "from another port")
		if _, err := s.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a reboot: %v, want ECONNRESET", err)
		}
	})
}
