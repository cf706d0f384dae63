package proxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/host"
)

// hasIPv6 reports whether the loopback interface has ::1.
func hasIPv6() bool {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		ln.Close()
	}
	return err == nil
}

// A forward without a bind listens on all addresses of the loopback interface, as
// ssh's do: on ::1, too, where there is IPv6.
func TestLoopbackIsBoth(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(c, c) })
	s, _ := startSet(t, nil, "-L 0:"+backend.String(), "-L 127.0.0.1:0:"+backend.String()+",max=9")
	all := s.List()
	if all[0].Forward != "-L localhost:0:"+backend.String() || !strings.HasPrefix(all[0].Listen, "127.0.0.1:") {
		t.Fatalf("%+v", all[0])
	}
	ping(t, dial(t, "tcp", all[0].Listen))
	_, port, _ := net.SplitHostPort(all[0].Listen)
	if hasIPv6() {
		ping(t, dial(t, "tcp", "[::1]:"+port))
	}
	_, port, _ = net.SplitHostPort(all[1].Listen)
	if c, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		c.Close()
		t.Error("a forward on 127.0.0.1 listens on ::1, too")
	}
}

// A port that somebody has on one of the addresses is none to listen on.
func TestLoopbackIsWhole(t *testing.T) {
	if !hasIPv6() {
		return // there is one address
	}
	taken, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	c := Config{Host: host.OS{}}
	if ln, err := c.listenLoopback(t.Context(), port); err == nil {
		ln.Close()
		t.Error("it listens on half of the loopback interface")
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
		ln.Close() // unless somebody else has it, it must have been left free
	}
}

// Close of two listeners ends Accept, with nothing left behind, and may be repeated.
func TestPairListenerCloses(t *testing.T) {
	var two [2]net.Listener
	for i := range two {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		two[i] = ln
	}
	p := newPairListener(two[0], two[1])
	for _, ln := range two {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range two {
		c, err := p.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	ended := make(chan error)
	go func() {
		_, err := p.Accept()
		ended <- err
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if err := p.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}
