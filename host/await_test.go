package host

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// Awaiter waits for a datagram, an empty one too, and for the deadline of reads.
func TestAwaiter(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := OS{}.Dial(context.Background(), "udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	await := Awaiter(c)
	buf := make([]byte, 100)
	for _, sent := range []string{"one", "", "three"} {
		if _, err := server.WriteTo([]byte(sent), c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := await(); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != sent {
			t.Errorf("read %q, %v, want %q", buf[:n], err, sent)
		}
	}
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := await(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() { ended <- await() }()
	c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A connection that is none of the system's is not waited for.
func TestAwaiterOfPipe(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := Awaiter(a)(); err != nil {
		t.Error(err)
	}
}
