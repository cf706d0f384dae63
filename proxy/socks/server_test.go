package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/carry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should happen at once, however slow the machine.
const patience = time.Minute

// client begins a client's connection over loopback with a server.
func client(t *testing.T, s *Server) (c *net.TCPConn, served chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if s.Limit == nil {
		s.Limit, s.Traffic = carry.NewLimit(100, 0, nil), new(carry.Traffic)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served = make(chan error, 1)
	done := make(chan struct{})
	go func() { defer close(done); served <- s.ServeConn(ctx, accepted) }()
	t.Cleanup(func() { cancel(); <-done; conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn), served
}

// echoing answers dials with a connection to one that echoes; dialled has what was
// asked for.
func echoing(t *testing.T) (s *Server, dialled chan string) {
	dialled = make(chan string, 1)
	return &Server{Dial: func(_ context.Context, user, network, address string) (net.Conn, error) {
		dialled <- fmt.Sprintf("%s %s %s", user, network, address)
		a, b := net.Pipe()
		go func() {
			buf := make([]byte, 100)
			n, _ := b.Read(buf)
			b.Write(append([]byte("echo "), buf[:n]...))
			b.Close()
		}()
		return a, nil
	}}, dialled
}

// refusing answers dials with an error.
func refusing(err error) *Server {
	return &Server{Dial: func(context.Context, string, string, string) (net.Conn, error) { return nil, err }}
}

func password(user, password string) bool { return user == "alice" && password == "secret" }

// A step is what a client says, and what it is to hear.
type step struct{ say, hear string }

func play(t *testing.T, c net.Conn, steps []step) {
	t.Helper()
	for i, s := range steps {
		io.WriteString(c, s.say)
		b := make([]byte, len(s.hear))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != s.hear {
			t.Fatalf("step %d: heard %q, %v; want %q", i, b, err, s.hear)
		}
	}
}

const (
	hello    = "\x05\x01\x00"                             // no authentication
	welcome  = "\x05\x00"                                 //
	success  = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00" // of a pipe, which has no address
	v4       = "\x01\x64\x40\x00\x07\x00\x50"             // 100.64.0.7:80
	v6       = "\x04\xfd\x7a\x11\x5c\xa1\xe0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x50"
	name     = "\x03\x03web\x00\x50"
	nowhere  = "\x01\x00\x00\x00\x00\x00\x00" // 0.0.0.0:0
	loggedIn = "\x01\x05alice\x06secret"
)

// SVC-162: CONNECT to an address of each type; names are left to the server.
func TestConnect(t *testing.T) {
	for address, want := range map[string]string{
		v4: " tcp 100.64.0.7:80", v6: " tcp [fd7a:115c:a1e0::7]:80", name: " tcp web:80",
		"\x03\x0a100.64.0.7\x00\x50": " tcp 100.64.0.7:80", "\x03\x07fd7a::7\x00\x50": " tcp [fd7a::7]:80",
		"\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x64\x40\x00\x07\x00\x50": " tcp 100.64.0.7:80",
	} {
		s, dialled := echoing(t)
		c, served := client(t, s)
		play(t, c, []step{{hello, welcome}, {"\x05\x01\x00" + address, success}, {"hello", "echo hello"}})
		if got := <-dialled; got != want {
			t.Errorf("%q dialled %q, want %q", address, got, want)
		}
		c.CloseWrite()
		if err := <-served; err != nil {
			t.Errorf("served: %v", err)
		}
		if in, out := s.Traffic.In.Load(), s.Traffic.Out.Load(); in != 5 || out != 10 {
			t.Errorf("counted %d in, %d out", in, out)
		}
	}
}

// A client may say all at once.
func TestConnectWithoutWaiting(t *testing.T) {
	s, _ := echoing(t)
	c, _ := client(t, s)
	play(t, c, []step{{hello + "\x05\x01\x00" + v4 + "hello", welcome + success + "echo hello"}})
}

// SVC-162: user name and password are wanted when they are configured, and tell the
// name when they are not.
func TestAuthentication(t *testing.T) {
	for name, test := range map[string]struct {
		check func(user, password string) bool
		steps []step
		ok    bool
	}{
		"right":           {password, []step{{"\x05\x02\x00\x02", "\x05\x02"}, {loggedIn, "\x01\x00"}, {"\x05\x01\x00" + v4, success}}, true},
		"wrong":           {password, []step{{"\x05\x01\x02", "\x05\x02"}, {"\x01\x05alice\x05guess", "\x01\x01"}}, false},
		"none offered":    {password, []step{{hello, "\x05\xff"}}, false},
		"nothing offered": {nil, []step{{"\x05\x00", "\x05\xff"}}, false},
		"not needed":      {nil, []step{{"\x05\x02\x00\x02", "\x05\x02"}, {loggedIn, "\x01\x00"}, {"\x05\x01\x00" + v4, success}}, true},
		"bad version":     {password, []step{{"\x05\x01\x02", "\x05\x02"}, {"\x05\x05alice\x06secret", ""}}, false},
		"SOCKS4":          {nil, []step{{"\x04\x01\x00\x50", ""}}, false},
	} {
		s, dialled := echoing(t)
		s.Authenticate = test.check
		c, served := client(t, s)
		play(t, c, test.steps)
		c.CloseWrite()
		if err := <-served; (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		if test.ok && <-dialled != "alice tcp 100.64.0.7:80" {
			t.Errorf("%s: the name was not told", name)
		}
	}
}

// SVC-162, SVC-163: each failure has its reply.
func TestReplies(t *testing.T) {
	for _, test := range []struct {
		err     error
		request string
		reply   byte
	}{
		{syscall.ECONNREFUSED, "\x01\x00" + v4, 5},
		{syscall.EACCES, "\x01\x00" + v4, 2},
		{fmt.Errorf("web: %w", ErrNotAllowed), "\x01\x00" + v4, 2},
		{syscall.ENETUNREACH, "\x01\x00" + v4, 3},
		{syscall.EHOSTUNREACH, "\x01\x00" + v4, 4},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, "\x01\x00" + name, 4},
		{os.ErrDeadlineExceeded, "\x01\x00" + v4, 4},
		{context.DeadlineExceeded, "\x01\x00" + v4, 4},
		{errors.New("else"), "\x01\x00" + v4, 1},
		{nil, "\x02\x00" + v4, 7},                 // BIND
		{nil, "\x03\x00" + v4, 7},                 // UDP is not served here
		{nil, "\x01\x00\x02\x00\x00", 8},          // a type that there is not
		{nil, "\x09\x00" + v4, 7},                 // a command that there is not
		{nil, "\x01\x00\x00" + "abcdef", 8},       // nor is this
		{nil, "\x01\x00\x03\x00\x00\x50", 1},      // a name without letters
		{nil, "\x01\x00\x03\x05fe%25\x00\x50", 1}, // one that no host has
	} {
		c, served := client(t, refusing(test.err))
		play(t, c, []step{{hello, welcome}, {"\x05" + test.request, "\x05" + string(test.reply) + "\x00" + nowhere}})
		if err := <-served; err == nil {
			t.Errorf("%v: served without an error", test.err)
		}
	}
}

func TestSniff(t *testing.T) {
	for first, want := range map[string]bool{"\x05\x01\x00": true, "GET / ": false, "\x16\x03": false} {
		a, b := net.Pipe()
		go func() { io.WriteString(a, first); a.Close() }()
		is, c, err := Sniff(b)
		if err != nil || is != want {
			t.Errorf("%q: SOCKS5 %v, %v", first, is, err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != first {
			t.Errorf("%q: read %q, %v", first, got, err)
		}
		c.Close()
	}
	a, b := net.Pipe()
	a.Close()
	if _, _, err := Sniff(b); err == nil {
		t.Error("a connection that ended is something")
	}
	b.Close()
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{hello, loggedIn, "\x05\x01\x00" + v4, "\x05\x03\x00" + v6, "\x05\x01\x00" + name, "\x05\x01\x00\x03\x00\x00\x50", "\x05\x01\x00\x02"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		readGreeting(bytes.NewReader(b))
		readPassword(bytes.NewReader(b))
		r := bytes.NewReader(b)
		q, err := readRequest(r)
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(q.to.String()); err != nil {
			t.Errorf("%q asks for %q: %v", b, q.to, err)
		}
		if to, rest, err := parseAddress(b[3:]); err != nil || to != q.to || len(rest) != r.Len() {
			t.Errorf("%q: read %v and left %d bytes, parsed %v and left %d, %v", b, q.to, r.Len(), to, len(rest), err)
		}
	})
}
