package carry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"
)

// startAcceptor accepts on loopback and echoes; served counts what was let in.
func startAcceptor(t *testing.T, limit *Limit) (a *Acceptor, served chan net.Conn, end func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served = make(chan net.Conn, 10)
	a = &Acceptor{Listener: ln, Limit: limit, Log: slog.New(slog.DiscardHandler)}
	a.Handle = func(ctx context.Context, c net.Conn) {
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		served <- c
		io.Copy(c, c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx) }()
	end = func() error { cancel(); return <-done }
	t.Cleanup(func() { cancel() })
	return a, served, end
}

func dialTo(t *testing.T, a *Acceptor) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", a.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func TestAcceptorResetsWhatItHasNoRoomFor(t *testing.T) {
	limit := NewLimit(1, 1, nil)
	a, served, end := startAcceptor(t, limit)
	dialTo(t, a)
	<-served
	late, err := net.Dial("tcp", a.Listener.Addr().String())
	if err == nil { // the reset may come before the dial has ended
		defer late.Close()
		late.SetDeadline(time.Now().Add(time.Minute))
		_, err = late.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection too many ended with %v, want a reset", err)
	}
	if limit.Open() != 1 || limit.Refused() != 1 {
		t.Errorf("%d open, %d refused; want 1, 1", limit.Open(), limit.Refused())
	}
	if err := end(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	if limit.Open() != 0 {
		t.Errorf("%d connections count after the end", limit.Open())
	}
}

// SVC-175: what is open goes on while nothing more is accepted.
func TestAcceptorDrains(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &Acceptor{Listener: ln, Limit: NewLimit(10, 0, nil), Log: slog.New(slog.DiscardHandler)}
	served := make(chan struct{})
	a.Handle = func(_ context.Context, c net.Conn) {
		defer c.Close()
		close(served)
		io.Copy(c, c)
	}
	done := make(chan error, 1)
	go func() { done <- a.Serve(t.Context()) }()
	c := dialTo(t, a)
	<-served
	a.Drain()
	if late, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		late.Close()
		t.Error("it still accepts")
	}
	b := make([]byte, 4)
	c.Write([]byte("ping"))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Errorf("an open connection answers %q, %v", b, err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestHandedConnectionsAreAccepted(t *testing.T) {
	client, server := tcpPair(t)
	h := NewHanded(server.LocalAddr())
	returned := make(chan struct{})
	go func() { defer close(returned); h.Hand(t.Context(), server) }()
	c, err := h.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "x")
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	c.Close()
	<-returned
	h.Close()
	h.Close()
	if _, err := h.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	h.Hand(t.Context(), client)
	if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("what is handed after Close is open: %v", err)
	}
}
