package host

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Accepted connections inherit the user timeout and the keep-alive period of
// their listener, and speak no Multipath TCP (DERP-157).
func TestListenTCPOptions(t *testing.T) {
	ln, err := OS{}.ListenTCP(t.Context(), "127.0.0.1:0", TCPOptions{KeepAlive: 10 * time.Minute, UserTimeout: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	if on, err := tcp.MultipathTCP(); on || err != nil {
		t.Errorf("Multipath TCP: %v, %v", on, err)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		option int
		want   int
	}{
		{"TCP_USER_TIMEOUT in ms", unix.TCP_USER_TIMEOUT, 15_000},
		{"TCP_KEEPIDLE in s", unix.TCP_KEEPIDLE, 600},
	} {
		got, err := 0, error(nil)
		raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, tt.option) })
		if err != nil || got != tt.want {
			t.Errorf("%s: %d, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}
