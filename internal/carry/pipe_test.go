package carry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// plainConn hides that the kernel carries c.
func plainConn(c net.Conn) net.Conn {
	return struct {
		net.Conn
		closeWriter
	}{c, c.(closeWriter)}
}

type closeWriter interface{ CloseWrite() error }

// tcpPair returns both ends of a connection over loopback.
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
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

// kinds are the ways in which streams are moved.
var kinds = map[string][2]func(net.Conn) net.Conn{
	"kernel to kernel": {same, same},
	"kernel to other":  {same, plainConn},
	"other to kernel":  {plainConn, same},
	"other to other":   {plainConn, plainConn},
}

func same(c net.Conn) net.Conn { return c }

// SVC-53, SVC-170: what was sent before a half-close arrives, and so does the
// reply after it; all is counted.
func TestPipeKeepsHalfClose(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			client, asked := tcpPair(t)
			made, server := tcpPair(t)
			done := make(chan error, 1)
			var traffic Traffic
			go func() { done <- Pipe(context.Background(), kind[0](asked), kind[1](made), &traffic) }()
			question := bytes.Repeat([]byte("question"), 50_000)
			go func() {
				client.Write(question)
				client.(closeWriter).CloseWrite()
			}()
			if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, question) {
				t.Fatalf("the server got %d bytes, %v; want %d", len(got), err, len(question))
			}
			io.WriteString(server, "answer")
			server.Close()
			if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
				t.Fatalf("the client got %q, %v", got, err)
			}
			if err := <-done; err != nil {
				t.Errorf("Pipe: %v", err)
			}
			if in, out := traffic.In.Load(), traffic.Out.Load(); in != uint64(len(question)) || out != 6 {
				t.Errorf("counted %d in, %d out; want %d, 6", in, out, len(question))
			}
		})
	}
}

func TestPipeEndsWithItsContext(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			client, asked := tcpPair(t)
			made, server := tcpPair(t)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- Pipe(ctx, kind[0](asked), kind[1](made), new(Traffic)) }()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Pipe: %v", err)
			}
			for _, c := range []net.Conn{client, server} {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("a connection is still open")
				}
			}
		})
	}
}

// A reset on one side is the end of both: data that went out before cannot be
// answered any more.
func TestPipePassesOnFailure(t *testing.T) {
	client, asked := tcpPair(t)
	made, server := tcpPair(t)
	done := make(chan error, 1)
	go func() { done <- Pipe(context.Background(), plainConn(asked), plainConn(made), new(Traffic)) }()
	client.(*net.TCPConn).SetLinger(0)
	client.Close()
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("the other side is still open")
	}
	if err := <-done; err == nil {
		t.Error("Pipe does not tell")
	}
}
