package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// start runs a forward to target and returns its address and what stops it.
func start(t *testing.T, target string) (f *Forward, stop func() error) {
	t.Helper()
	var d net.Dialer
	f = NewForward(listen(t), d.DialContext, target, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	stop = func() error { cancel(); return <-done }
	t.Cleanup(func() { cancel() })
	return f, stop
}

func dial(t *testing.T, addr net.Addr) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// The reply after CloseWrite must arrive, in both directions.
func TestForwardKeepsHalfClose(t *testing.T) {
	backend := listen(t)
	go func() {
		c, err := backend.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		req, _ := io.ReadAll(c)
		c.Write(append([]byte("reply to "), req...))
	}()
	f, stop := start(t, backend.Addr().String())
	c := dial(t, f.Addr())
	io.WriteString(c, "hello")
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "reply to hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestForwardResetsWhenTargetRefuses(t *testing.T) {
	gone := listen(t)
	gone.Close()
	f, stop := start(t, gone.Addr().String())
	c, err := net.DialTimeout("tcp", f.Addr().String(), 5*time.Second)
	if err == nil { // the reset may come before the dial has ended
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	stop()
	if accepted, failed := f.Counts(); accepted != 1 || failed != 1 {
		t.Errorf("accepted %d, failed %d; want 1, 1", accepted, failed)
	}
}

func TestServeEndsOpenConnections(t *testing.T) {
	backend := listen(t)
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := backend.Accept(); err == nil {
			accepted <- c
		}
	}()
	f, stop := start(t, backend.Addr().String())
	c := dial(t, f.Addr())
	b := <-accepted
	defer b.Close()
	stop()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("connection is still open")
	}
	if _, err := net.DialTimeout("tcp", f.Addr().String(), time.Second); err == nil {
		t.Error("listener is still open")
	}
}
