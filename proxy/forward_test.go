package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// A Forward by itself, as a program may use it, keeps half-close (SVC-53).
func TestForwardKeepsHalfClose(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	f := NewForward(ln, d.DialContext, backend.String(), quiet)
	stop := serve(t, f)
	if got := ask(t, "tcp", f.Addr().String(), "hello"); got != "echo hello" {
		t.Errorf("got %q", got)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
	if total, failed := f.Counts(); total != 1 || failed != 0 {
		t.Errorf("%d forwarded, %d failed; want 1, 0", total, failed)
	}
}

// Both directions, and unix sockets at the ends that are of this machine.
func TestForwardsJoinBothSides(t *testing.T) {
	dir := t.TempDir()
	tcp := listen(t, "tcp", "127.0.0.1:0", echo)
	unix := listen(t, "unix", filepath.Join(dir, "backend"), echo)
	at := filepath.Join(dir, "listen")
	s, _ := startSet(t, nil, "-L 0:"+tcp.String(), "-R 0:"+tcp.String(), "-L unix:"+at+":"+tcp.String(), "-R 0:unix:"+unix.String())
	for i, st := range s.List() {
		network, address := split("tcp", st.Listen)
		if got := ask(t, network, address, "hello"); got != "echo hello" {
			t.Errorf("%s: got %q", st.Forward, got)
		}
		waitFor(t, "the connection to end", func() bool { return s.List()[i].Open == 0 })
		if st := s.List()[i]; st.Total != 1 || st.Failed != 0 || st.BytesIn != 5 || st.BytesOut != 10 {
			t.Errorf("status %+v", st)
		}
	}
}

// A client sees at once that there is nobody, in both directions; on the tailnet it
// is never told that it was accepted (SVC-53).
func TestForwardResetsWhenTargetRefuses(t *testing.T) {
	gone := nobody(t)
	s, l := startSet(t, nil, "-L 0:"+gone, "-R 0:"+gone)
	for i, st := range s.List() {
		wantReset(t, "tcp", st.Listen)
		waitFor(t, "the connection to end", func() bool { return s.List()[i].Open == 0 })
		if st := s.List()[i]; st.Total != 1 || st.Failed != 1 || !strings.Contains(st.LastError, "refused") {
			t.Errorf("status %+v", st)
		}
	}
	if len(l.pending) != 1 || l.pending[0].done {
		t.Error("the client on the tailnet was accepted")
	}
}

// wantReset connects, and is reset.
func wantReset(t *testing.T, network, address string) {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	if err == nil { // the reset may come before the dial has ended
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: got %v, want a reset", address, err)
	}
}

// SVC-54: the target's side of a connection stands for the peer that opened it.
func TestForwardActsForItsPeer(t *testing.T) {
	socket := make(chan net.Addr, 1)
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { socket <- c.RemoteAddr(); echo(c) })
	s, l := startSet(t, nil, "-R 0:"+backend.String())
	c := dial(t, "tcp", s.List()[0].Listen)
	near := <-socket
	waitFor(t, "the peer to be known", func() bool {
		peer, ok := l.actsFor("tcp", near)
		return ok && peer.String() == c.LocalAddr().String()
	})
	askOn(t, c, "x")
	waitFor(t, "the peer to be forgotten", func() bool { _, ok := l.actsFor("tcp", near); return !ok })
}

// readProxied reads the header that a connection begins with, and answers who it is
// for, and what follows.
func readProxied(c net.Conn) {
	r := bufio.NewReader(c)
	h, err := proxyproto.Read(r)
	if err != nil {
		fmt.Fprint(c, err)
		return
	}
	rest, _ := io.ReadAll(r)
	fmt.Fprintf(c, "v%d %v to %v: %s", h.Version, h.SourceAddr, h.DestinationAddr, rest)
}

// SVC-103, acceptance item 9: the target learns the tailnet address of its client,
// by either version.
func TestForwardSendsProxyHeader(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", readProxied)
	s, _ := startSet(t, nil, "-R 0:"+backend.String()+",proxy=v1", "-R 0:"+backend.String()+",proxy=v2")
	for i, st := range s.List() {
		c := dial(t, "tcp", st.Listen)
		want := fmt.Sprintf("v%d %v to %v: hello", i+1, c.LocalAddr(), c.RemoteAddr())
		if got := askOn(t, c, "hello"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Of a client without an address the header says only that the proxy speaks.
func TestForwardSendsProxyHeaderOfUnixSocket(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", readProxied)
	at := filepath.Join(t.TempDir(), "s")
	startSet(t, nil, "-L unix:"+at+":"+backend.String()+",proxy=v2")
	if got := ask(t, "unix", at, "hello"); got != "v2 <nil> to <nil>: hello" {
		t.Errorf("got %q", got)
	}
}

// A header that is accepted is taken off, and passed on if the target wants one.
func TestForwardAcceptsProxyHeader(t *testing.T) {
	plain := listen(t, "tcp", "127.0.0.1:0", echo)
	proxied := listen(t, "tcp", "127.0.0.1:0", readProxied)
	s, _ := startSet(t, nil, "-R 0:"+plain.String()+",accept-proxy", "-R 0:"+proxied.String()+",proxy=v2,accept-proxy")
	v1 := "PROXY TCP4 203.0.113.7 198.51.100.1 1234 443\r\n"
	if got := ask(t, "tcp", s.List()[0].Listen, v1+"hello"); got != "echo hello" {
		t.Errorf("got %q", got)
	}
	if got := ask(t, "tcp", s.List()[1].Listen, v1+"hello"); got != "v2 203.0.113.7:1234 to 198.51.100.1:443: hello" {
		t.Errorf("got %q", got)
	}
}

// A client that should send a header and does not gets nowhere.
func TestForwardRefusesWithoutProxyHeader(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	s, _ := startSet(t, nil, "-R 0:"+backend.String()+",accept-proxy")
	for i, text := range []string{"GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 what\r\n", "\r\n\r\n\x00\r\nQUIT\n\xff", ""} {
		c := dial(t, "tcp", s.List()[0].Listen)
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); len(b) > 0 || text != "" && err == nil {
			t.Errorf("%q got %q, %v; want a reset", text, b, err)
		}
		waitFor(t, "the failure to count", func() bool { return s.List()[0].Failed == uint64(i+1) })
	}
}

// One source that takes all connections it gets leaves some to others.
func TestForwardLimitsConnections(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	s, _ := startSet(t, onOverlay, "-R 0:"+backend.String()+",max=4")
	at := s.List()[0].Listen
	for range 2 {
		dial(t, "tcp", at)
	}
	waitFor(t, "both to be let in", func() bool { st := s.List()[0]; return st.Open == 2 && st.Total == 2 })
	wantReset(t, "tcp", at)
	if st := s.List()[0]; st.Refused != 1 || st.Total != 2 {
		t.Errorf("status %+v", st)
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	o, err := other.Dial("tcp", at)
	if err != nil {
		t.Skipf("this machine has no second loopback address: %v", err)
	}
	defer o.Close()
	if got := askOn(t, o, "me too"); got != "echo me too" {
		t.Errorf("another source got %q", got)
	}
}

// Programs of this machine share an address, or have none: they get all there is.
func TestForwardGivesThisMachineAll(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	at := filepath.Join(t.TempDir(), "s")
	s, _ := startSet(t, nil, "-L 0:"+backend.String()+",max=4", "-L unix:"+at+":"+backend.String()+",max=4")
	for i, st := range s.List() {
		network, address := split("tcp", st.Listen)
		for range 4 {
			dial(t, network, address)
		}
		waitFor(t, "all to be let in", func() bool { return s.List()[i].Open == 4 })
		if network == "tcp" {
			wantReset(t, network, address)
		} else if _, err := dial(t, network, address).Read(make([]byte, 1)); err == nil {
			t.Error("one too many was let in")
		}
		waitFor(t, "the last to be refused", func() bool { return s.List()[i].Refused == 1 })
	}
}

func FuzzAnnounced(f *testing.F) {
	for _, version := range []int{1, 2} {
		for _, a := range []net.Addr{&net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 2}, nil} {
			b, err := proxyHeader(version, a, a)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(append(b, "hello"...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		go func() { client.Write(b); client.Close() }()
		fw := &Forward{options: Options{AcceptProxy: true}}
		a, err := fw.announced(server)
		if err == nil && !strings.HasSuffix(string(b), string(a.rest)) {
			t.Errorf("%q leaves %q", b, a.rest)
		}
		if err == nil {
			if _, err := proxyHeader(2, a.from, a.to); err != nil {
				t.Errorf("%q gives addresses that cannot be passed on: %v", b, err)
			}
		}
		server.Close()
	})
}
