package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func contextWithTimeout(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 2*time.Second)
}

// closeSoon fails the test if Close takes long.
func closeSoon(t testing.TB, stacks ...*Stack) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var errs []error
		for _, s := range stacks {
			errs = append(errs, s.Close())
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close hangs")
	}
}

// Close returns although the link has lost its reader in the middle of a
// transfer, detached or not, and everything that waits ends.
func TestCloseWithoutLinkReader(t *testing.T) {
	for _, detached := range []bool{true, false} {
		a, b := newStack(t, a4), newStack(t, b4)
		if !detached {
			a.Link().Attach() // a drain loop that hangs
		}
		unplug := join(t, a, b, segmented)
		client, server := connected(t, a, b, b4)
		wrote := make(chan error, 1)
		go func() {
			for {
				if _, err := client.Write(make([]byte, 1<<20)); err != nil {
					wrote <- err
					return
				}
			}
		}()
		io.ReadFull(server, make([]byte, 1<<20))
		unplug()
		closeSoon(t, a, b)
		if err := <-wrote; !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v, want net.ErrClosed", err)
		}
	}
}

// Close ends all that waits, and nothing can be opened afterwards.
func TestCloseEndsEverything(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	ln := listenTCP(t, a, anyPort)
	pc, conn := listenUDP(t, a, anyPort), dialUDP(t, a, netip.AddrPortFrom(b4, 9))
	nowhere := netip.AddrPortFrom(netip.MustParseAddr("100.64.9.9"), 80)
	waits := map[string]func() error{
		"Read":     func() error { _, err := client.Read(make([]byte, 1)); return err },
		"Accept":   func() error { _, err := ln.Accept(); return err },
		"ReadFrom": func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err },
		"UDP Read": func() error { _, err := conn.Read(make([]byte, 1)); return err },
		"DialTCP":  func() error { _, err := a.DialTCP(context.Background(), netip.Addr{}, nowhere); return err },
	}
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(waits))
	for name, wait := range waits {
		go func() { results <- result{name, wait()} }()
	}
	closeSoon(t, a)
	for range waits {
		if r := <-results; !errors.Is(r.err, net.ErrClosed) {
			t.Errorf("%s: %v, want net.ErrClosed", r.name, r.err)
		}
	}
	_, errTCP := a.ListenTCP(anyPort)
	_, errUDP := a.ListenUDP(anyPort)
	_, errDial := a.DialUDP(context.Background(), netip.AddrPort{}, nowhere)
	_, errWrite := client.Write([]byte("x"))
	for name, err := range map[string]error{
		"ListenTCP": errTCP, "ListenUDP": errUDP, "DialUDP": errDial, "Write": errWrite, "DialTCP": waits["DialTCP"](),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v, want net.ErrClosed", name, err)
		}
	}
	a.Link().Inject([]byte{0x45}) // comes too late, and does no harm
	_ = server
}

// Close meets connections and sockets in every state of being made.
func TestCloseRaces(t *testing.T) {
	for range 20 {
		a, b := pair(t)
		ln := listenTCP(t, b, netip.AddrPortFrom(b4, 0))
		dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { io.Copy(c, c); c.Close() })
			}
		})
		for range 8 {
			wg.Go(func() {
				for {
					c, err := a.DialTCP(context.Background(), netip.Addr{}, dst)
					if err != nil {
						return
					}
					go c.Write([]byte("hello"))
					io.ReadFull(c, make([]byte, 5))
					c.Close()
				}
			})
		}
		for _, s := range []*Stack{a, b} {
			wg.Go(func() {
				for {
					pc, err := s.ListenUDP(anyPort)
					if err != nil {
						return
					}
					l, err := s.ListenTCP(anyPort)
					if err == nil {
						l.Close()
					}
					pc.Close()
				}
			})
		}
		conn := dialTCP(t, a, dst) // there is traffic before the end
		conn.Write([]byte("x"))
		io.ReadFull(conn, make([]byte, 1))
		var closing sync.WaitGroup
		for range 2 { // Close of two goroutines, and of both ends at once
			closing.Go(func() { closeSoon(t, b) })
			closing.Go(func() { closeSoon(t, a) })
		}
		closing.Wait()
		wg.Wait()
		if n := len(a.gv.RegisteredEndpoints()) + len(b.gv.RegisteredEndpoints()); n != 0 {
			t.Fatalf("%d sockets outlive the stack", n)
		}
	}
}

// The loop that drains a link may end and another one begin; connections do not
// notice more than a pause.
func TestConnectionsOutliveDrainLoop(t *testing.T) {
	a, b := newStack(t, a4), newStack(t, b4)
	unplug := join(t, a, b, segmented)
	client, server := connected(t, a, b, b4)
	got := make(chan int64, 1)
	go func() { n, _ := io.Copy(io.Discard, server); got <- n }()
	const size = 20 << 20
	go func() { client.Write(make([]byte, size)); client.CloseWrite() }()
	for range 5 {
		unplug()
		unplug = join(t, a, b, segmented)
	}
	if n := <-got; n != size {
		t.Errorf("%d of %d bytes came", n, size)
	}
}
