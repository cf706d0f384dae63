package netstack

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestPing(t *testing.T) {
	a, _ := pair(t)
	for _, tt := range []struct {
		name    string
		dst     netip.Addr
		payload []byte
	}{
		{"IPv4", b4, []byte("hello")},
		{"IPv6", b6, []byte("hello")},
		{"no payload", b4, nil},
		{"several fragments", b4, bytes.Repeat([]byte("0123456789"), 300)},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		took, err := a.Ping(ctx, tt.dst, tt.payload)
		if err != nil || took <= 0 {
			t.Errorf("%s: %v, %v", tt.name, took, err)
		}
		cancel()
	}
}

// A ping that meets Close says so, wherever it is.
func TestPingMeetsClose(t *testing.T) {
	for i := range 100 {
		s := newStack(t, a4)
		done, started := make(chan error), make(chan struct{})
		go func() {
			close(started)
			_, err := s.Ping(context.Background(), b4, nil)
			done <- err
		}()
		<-started
		for range i * 5 { // the ping gets further each time
			s.addresses.has(b4)
		}
		s.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	}
}

func TestPingErrors(t *testing.T) {
	a := newStack(t, a4)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Ping(short, b4, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
	take(t, a)
	if _, err := a.Ping(t.Context(), b6, nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("no address of the family: %v", err)
	}
	if _, err := a.Ping(t.Context(), b4, make([]byte, maxEcho+1)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("too long: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := a.Ping(context.Background(), b4, nil)
		done <- err
	}()
	take(t, a)
	a.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	if _, err := a.Ping(t.Context(), b4, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
