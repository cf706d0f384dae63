package localapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// tcpPair returns two ends of a connection that can be closed by half.
func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// dial makes the client's connection the way to a node, and passes on the end of
// each direction alone.
func TestDial(t *testing.T) {
	near, far := tcpPair(t)
	n := newFake()
	n.dial = func(_ context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" || address != "web:80" {
			return nil, errors.New(network + " " + address)
		}
		return near, nil
	}
	_, c := serve(t, n, nil)
	conn, err := c.Dial(within(t), "tcp", "web:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "question")
	conn.(closeWriter).CloseWrite()
	if got, err := io.ReadAll(far); err != nil || string(got) != "question" {
		t.Errorf("far end got %q, %v", got, err)
	}
	io.WriteString(far, "answer")
	far.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "answer" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What is not on the tailnet is for the client to reach; what fails says why.
func TestDialFails(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	n.dial = func(context.Context, string, string) (net.Conn, error) {
		return nil, &OutsideError{netip.MustParseAddrPort("192.0.2.1:80")}
	}
	var outside *OutsideError
	if _, err := c.Dial(within(t), "tcp", "example.org:80"); !errors.As(err, &outside) || outside.Addr.String() != "192.0.2.1:80" {
		t.Errorf("outside: %v", err)
	}
	n.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("rejected by policy") }
	var status *StatusError
	if _, err := c.Dial(within(t), "tcp", "web:80"); !errors.As(err, &status) || status.Status != 502 || !strings.Contains(status.Text, "rejected by policy") {
		t.Errorf("failure: %v", err)
	}
	for _, h := range [][]string{
		{}, {"Connection", "upgrade"}, {"Connection", "upgrade", "Upgrade", "websocket"},
		{"Connection", "upgrade", "Upgrade", dialProtocol, "Dial-Host", "web"},
	} {
		if code, text, _ := ask(t, c, "POST", prefix+"dial", "", h...); code != 400 {
			t.Errorf("%v: %d %s", h, code, text)
		}
	}
}

// Datagrams keep their bounds on the way through the socket, empty and long ones
// too.
func TestDialUDP(t *testing.T) {
	far, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	n := newFake()
	n.dial = func(context.Context, string, string) (net.Conn, error) {
		return net.DialUDP("udp", nil, far.LocalAddr().(*net.UDPAddr))
	}
	_, c := serve(t, n, nil)
	conn, err := c.Dial(within(t), "udp", "web:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, maxDatagram)
	for _, size := range []int{1, 9000, 0, 40000, 3} {
		sent := bytes.Repeat([]byte{'x'}, size)
		conn.Write(sent)
		got, from, err := far.ReadFromUDP(buf)
		if err != nil || got != size {
			t.Fatalf("far end got %d bytes, want %d, %v", got, size, err)
		}
		far.WriteToUDP(buf[:got], from)
		if got, err := conn.Read(buf); err != nil || got != size {
			t.Fatalf("got %d bytes, want %d, %v", got, size, err)
		}
	}
}

// FuzzUnframer: what is framed comes back; what is cut off is an error.
func FuzzUnframer(f *testing.F) {
	f.Add([]byte{0, 3, 'a', 'b', 'c', 0, 0})
	f.Add([]byte{0, 3, 'a'})
	f.Fuzz(func(t *testing.T, stream []byte) {
		u := &unframer{bufio.NewReader(bytes.NewReader(stream))}
		var again bytes.Buffer
		out := &framer{w: &again}
		for buf := make([]byte, maxDatagram); ; {
			n, err := u.Read(buf)
			if err != nil {
				break
			}
			if _, err := out.Write(buf[:n]); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(stream, again.Bytes()) {
			t.Errorf("%x became %x", stream, again.Bytes())
		}
	})
}

// The end of the server ends connections that lead through it, and Serve waits
// for them (the cleanup of serve sees to that).
func TestDialEndsWithServer(t *testing.T) {
	near, _ := tcpPair(t)
	n := newFake()
	n.dial = func(context.Context, string, string) (net.Conn, error) { return near, nil }
	var conn net.Conn
	t.Run("serve", func(t *testing.T) {
		_, c := serve(t, n, nil)
		var err error
		if conn, err = c.Dial(within(t), "tcp", "web:80"); err != nil {
			t.Fatal(err)
		}
	})
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}

// A capture streams until the client goes, and ends when it does not read.
func TestCapture(t *testing.T) {
	n := newFake()
	n.packets = []byte("packets")
	_, c := serve(t, n, nil)
	body, err := c.Stream(within(t), "POST", "debug-capture", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(n.packets))
	if _, err := io.ReadFull(body, got); err != nil || string(got) != "packets" {
		t.Errorf("got %q, %v", got, err)
	}
	body.Close()
}
