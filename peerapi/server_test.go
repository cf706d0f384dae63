package peerapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// SVC-83: the port follows from the last bytes of the address as the reference's
// does, so that both families agree; it is the next of a few when somebody has it,
// then any; and it stays the same.
func TestSVC83Port(t *testing.T) {
	want := []uint16{58436, 36467, 45098, 55837, 52376, 0} // CRC-32 of 64 0 1, 65 0 1, …
	for _, own := range []netip.Addr{we4, netip.MustParseAddr("fd7a:115c:a1e0::40:1")} {
		if got := candidates(own); !slices.Equal(got, want) {
			t.Errorf("candidates of %v: %v, want %v", own, got, want)
		}
	}
	for taken := range 6 {
		inBubble(t, func(w *world) {
			for _, port := range want[:taken] {
				ln, err := w.listen(port)
				if err != nil {
					w.t.Fatal(err)
				}
				defer ln.Close()
			}
			got, err := w.server.Open(we4)
			if err != nil || taken < 5 && got != want[taken] || got == 0 {
				w.t.Errorf("with %d taken: port %d, %v, want of %v", taken, got, err, want)
			}
			if again, err := w.server.Open(peer4); err != nil || again != got {
				w.t.Errorf("after a change of address: %d, %v, want %d", again, err, got)
			}
		})
	}
}

// inBubble runs a test in a world whose server is not open.
func inBubble(t *testing.T, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		test(w)
	})
}

// What makes no port: nobody listens, or the server is closed.
func TestOpenErrors(t *testing.T) {
	broken := errors.New("broken")
	s := New(Config{Listen: func(uint16) (Listener, error) { return nil, broken }})
	if _, err := s.Open(we4); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	s.Close()
	if _, err := s.Open(we4); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := s.Serve(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// SVC-86: a connection of nobody on the tailnet is closed without an answer.
func TestSVC86StrangersGetNoAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if got, _ := w.raw(w.other, "GET / HTTP/1.1\r\nHost: peer\r\n\r\n"); got != "" {
			t.Errorf("got %q", got)
		}
		if got := w.do("GET", "/", nil); got.status != http.StatusOK {
			t.Errorf("a peer: %+v", got)
		}
		if st := w.server.Stats(); st.Strangers != 1 || st.Connections != 2 || st.Requests != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// HTTP/1.1 and cleartext HTTP/2 serve the same.
func TestBothVersionsOfHTTP(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			http2 bool
			proto string
		}{{false, "HTTP/1.1"}, {true, "HTTP/2.0"}} {
			got := w.doBy(w.client(w.peer, tt.http2), "GET", "/", nil)
			if got.status != http.StatusOK || got.proto != tt.proto || !strings.Contains(got.body, "we.tail.ts.net") {
				t.Errorf("%s: %+v", tt.proto, got)
			}
			if got := w.doBy(w.client(w.peer, tt.http2), "GET", "/", nil, withHost("evil.example")); got.status != http.StatusForbidden {
				t.Errorf("%s: %+v", tt.proto, got)
			}
		}
	})
}

// Clients that do nothing lose their connection, at whatever point.
func TestSlowClientsAreCutOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			name, send string
			want       time.Duration
		}{
			{"nothing", "", maxHeaderWait},
			{"half a header", "GET / HTTP/1.1\r\nHost: pe", maxHeaderWait},
			{"half a body", "POST /dns-query HTTP/1.1\r\nHost: peer\r\nContent-Type: application/dns-message\r\nContent-Length: 9\r\n\r\nx", maxTransferWait},
			{"no further request", "GET / HTTP/1.1\r\nHost: peer\r\n\r\n", maxIdleWait},
		} {
			if got, after := w.raw(w.peer, tt.send); after != tt.want {
				t.Errorf("%s: closed after %v, want %v: %q", tt.name, after, tt.want, got)
			}
		}
	})
}

// A header has a bound: beyond it the request comes to nothing.
func TestLongHeaders(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for size, want := range map[int]uint64{maxHeaderBytes / 2: 1, 2 * maxHeaderBytes: 0} {
			before := w.server.Stats().Requests
			w.do("GET", "/", nil, withHeader("X-Long", strings.Repeat("x", size)))
			if got := w.server.Stats().Requests - before; got != want {
				t.Errorf("a header of %d bytes: %d requests, want %d", size, got, want)
			}
		}
	})
}

// One node has at most maxConnsOfPeer connections, all together maxConns; the
// others are closed, and one that ends makes room.
func TestConnectionsAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		// served reports whether a new connection gets answers.
		served := func() bool {
			c, err := w.peer.Dial(t.Context(), "tcp", netip.AddrPortFrom(we4, w.port).String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: peer\r\n\r\n")
			if n, _ := c.Read(make([]byte, 1)); n == 0 {
				c.Close()
				return false
			}
			open = append(open, c)
			return true
		}
		for node := range maxConns / maxConnsOfPeer {
			w.change(func() { w.caller.Node = newNode(netmap.NodeID(10+node), fmt.Sprintf("n%d.", node), peer4) })
			for i := range maxConnsOfPeer {
				if !served() {
					t.Fatalf("node %d: connection %d was closed", node, i)
				}
			}
			if node == 0 && served() {
				t.Error("a node has one connection too many")
			}
		}
		w.change(func() { w.caller.Node = newNode(99, "late.", peer4) })
		if served() {
			t.Error("there is one connection too many")
		}
		open[0].Close()
		synctest.Wait()
		if !served() {
			t.Error("a connection has ended, and there is no room")
		}
		if st := w.server.Stats(); st.Crowded != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// Requests under way have a bound: further ones are told to come again.
func TestRequestsAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for range maxRequests {
			w.server.requests <- struct{}{}
		}
		if got := w.do("GET", "/", nil); got.status != http.StatusServiceUnavailable {
			t.Errorf("%+v", got)
		}
		for range maxRequests {
			<-w.server.requests
		}
		if got := w.do("GET", "/", nil); got.status != http.StatusOK || w.server.Stats().Busy != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// One node cannot have so many requests under way that there is no room for those
// of others.
func TestRequestsOfOneNodeAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.change(func() {
			w.answer = func(ctx context.Context, q []byte) ([]byte, error) { <-ctx.Done(); return q, ctx.Err() }
		})
		tr := w.client(w.peer, true)
		tr.DisableKeepAlives = false
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://peer/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req) // makes the connection that the others share
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		var asking sync.WaitGroup
		for range maxRequestsOf {
			asking.Go(func() { w.doBy(tr, "GET", "/dns-query?dns=AAAA", nil) })
		}
		synctest.Wait()
		if got := w.do("GET", "/", nil); got.status != http.StatusServiceUnavailable {
			t.Errorf("one more of the node: %+v", got)
		}
		first := w.caller.Node
		w.change(func() { w.caller.Node = newNode(3, "third.", peer4) })
		if got := w.do("GET", "/", nil); got.status != http.StatusOK {
			t.Errorf("another node: %+v", got)
		}
		asking.Wait() // each for dnsTimeout
		w.change(func() { w.caller.Node = first })
		if got := w.do("GET", "/", nil); got.status != http.StatusOK || w.server.Stats().Busy != 1 {
			t.Errorf("once they are answered: %+v, %+v", got, w.server.Stats())
		}
	})
}

// The end of Serve ends requests under way and connections, and waits for them; a
// Serve after that opens the same port again.
func TestServeEndsAndComesAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		under := make(chan struct{})
		w.answer = func(ctx context.Context, _ []byte) ([]byte, error) {
			close(under)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		done := make(chan response)
		go func() { done <- w.do("GET", "/dns-query?dns=AAAA", nil) }()
		<-under
		w.stop()
		w.serving.Wait()
		if got := <-done; got.status == http.StatusOK {
			t.Errorf("%+v", got)
		}
		ctx, stop := context.WithCancel(t.Context())
		w.serving.Go(func() { w.server.Serve(ctx) })
		synctest.Wait()
		if got := w.do("GET", "/", nil); got.status != http.StatusOK {
			t.Errorf("after a restart: %+v", got)
		}
		stop()
		w.serving.Wait()
		if w.starts != 1 {
			t.Errorf("started %d times", w.starts)
		}
	})
}

// SVC-90: the client's ping is a HEAD of the first page, and takes nothing else
// for an answer.
func TestSVC90Ping(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := netip.AddrPortFrom(we4, w.port)
		c := Client{Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to != at {
				t.Errorf("asked %v, want %v", to, at)
			}
			return w.peer.Dial(ctx, "tcp", to.String())
		}}
		if err := c.Ping(t.Context(), at); err != nil {
			t.Error(err)
		}
		w.change(func() { w.self = nil })
		if err := c.Ping(t.Context(), at); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("a node that has left its tailnet: %v", err)
		}
		c.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, net.ErrClosed }
		if err := c.Ping(t.Context(), at); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
