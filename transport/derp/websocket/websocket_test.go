package websocket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ws "github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/transport/derp/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait of a test in real time.
const patience = 10 * time.Second

// An acceptor is a handler that hands out the streams it has accepted.
type acceptor struct {
	conns chan net.Conn
	errs  chan error
	done  chan struct{} // ends the handlers
}

func newAcceptor() *acceptor {
	return &acceptor{conns: make(chan net.Conn, 1), errs: make(chan error, 1), done: make(chan struct{})}
}

func (a *acceptor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsUpgrade(r) {
		http.Error(w, "no upgrade", http.StatusUpgradeRequired)
		return
	}
	c, err := websocket.Accept(w, r)
	if err != nil {
		a.errs <- err
		return
	}
	a.conns <- c
	<-a.done
}

// serve runs an acceptor on loopback.
func serve(t *testing.T, start func(http.Handler) *httptest.Server) (*acceptor, *httptest.Server) {
	t.Helper()
	a := newAcceptor()
	s := start(a)
	t.Cleanup(func() { close(a.done); s.Close() })
	return a, s
}

// accepted returns the server's end of the next connection.
func (a *acceptor) accepted(t *testing.T) net.Conn {
	t.Helper()
	select {
	case c := <-a.conns:
		t.Cleanup(func() { c.Close() })
		return c
	case err := <-a.errs:
		t.Fatalf("Accept: %v", err)
	}
	return nil
}

func dial(t *testing.T, url string, config *tls.Config) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := websocket.Dial(ctx, url, config, host.OS{}.Dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pass sends b from one end and reads it at the other.
func pass(t *testing.T, from, to net.Conn, b []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(b)
		sent <- err
	}()
	got := make([]byte, len(b))
	to.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatalf("read %d bytes: %v", len(b), err)
	}
	if err := <-sent; err != nil {
		t.Fatalf("write %d bytes: %v", len(b), err)
	}
	if !bytes.Equal(got, b) {
		t.Errorf("%d bytes did not arrive as they were sent", len(b))
	}
}

// TestStream: DERP-100: bytes arrive both ways, whatever the borders, with TLS
// and without.
func TestStream(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{
		"plain": httptest.NewServer, "TLS": httptest.NewTLSServer,
	} {
		t.Run(name, func(t *testing.T) {
			a, s := serve(t, start)
			config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}
			if c := s.Certificate(); c != nil {
				config.RootCAs.AddCert(c)
			}
			client := dial(t, s.URL+"/derp", config)
			server := a.accepted(t)
			for _, n := range []int{0, 1, 5, 32 << 10, 32<<10 + 1, 65573, 200_000} {
				b := bytes.Repeat([]byte("0123456789abcdef!"), n/17+1)[:n]
				pass(t, client, server, b)
				pass(t, server, client, b)
			}
			if got, want := client.RemoteAddr().String(), strings.TrimPrefix(strings.TrimPrefix(s.URL, "http://"), "https://"); got != want {
				t.Errorf("remote address %s, want %s", got, want)
			}
			if server.RemoteAddr().String() != client.LocalAddr().String() {
				t.Errorf("addresses do not match: %v, %v", server.RemoteAddr(), client.LocalAddr())
			}
		})
	}
}

// TestForeignPeer: DERP-101, DERP-102: a peer that takes messages of 32 KiB at
// most understands both of our sides.
func TestForeignPeer(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 100_000)
	read := func(t *testing.T, c *ws.Conn) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for left := len(long); left > 0; {
			kind, b, err := c.Read(ctx) // its limit is 32 KiB when it is not told another
			if err != nil || kind != ws.MessageBinary {
				t.Fatalf("%v message of %d bytes, %v", kind, len(b), err)
			}
			left -= len(b)
		}
	}
	t.Run("client", func(t *testing.T) {
		a, s := serve(t, httptest.NewServer)
		c, _, err := ws.Dial(context.Background(), s.URL, &ws.DialOptions{Subprotocols: []string{"derp"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		go a.accepted(t).Write(long)
		read(t, c)
	})
	t.Run("server", func(t *testing.T) {
		conns := make(chan *ws.Conn, 1)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := ws.Accept(w, r, &ws.AcceptOptions{Subprotocols: []string{"derp"}})
			if err != nil {
				t.Error(err)
			}
			conns <- c
		}))
		defer s.Close()
		client := dial(t, s.URL, nil)
		c := <-conns
		defer c.CloseNow()
		go client.Write(long)
		read(t, c)
	})
}

// TestDialRefuses: what is not a relay that speaks DERP over WebSocket.
func TestDialRefuses(t *testing.T) {
	upgrade := func(o *ws.AcceptOptions) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if c, err := ws.Accept(w, r, o); err == nil {
				c.CloseNow()
			}
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"another status": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
		"redirect":       func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"no subprotocol": upgrade(&ws.AcceptOptions{}),
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			c, err := websocket.Dial(context.Background(), s.URL, nil, host.OS{}.Dial)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if !strings.Contains(err.Error(), s.URL) {
				t.Errorf("error %q does not name %s", err, s.URL)
			}
		})
	}
	t.Run("certificate of another", func(t *testing.T) {
		_, s := serve(t, httptest.NewTLSServer)
		_, err := websocket.Dial(context.Background(), s.URL, nil, host.OS{}.Dial)
		var unknown x509.UnknownAuthorityError
		if !errors.As(err, &unknown) {
			t.Errorf("error %v, want an unknown authority", err)
		}
	})
}

// TestDialEndsWithContext: a server that does not answer holds Dial no longer
// than its context.
func TestDialEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ln := twoHosts(t)
		go ln.Accept()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := websocket.Dial(ctx, "ws://relay.example.com/derp", nil, client.Dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline of the context", err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("Dial took %v", took)
		}
		ln.Close()
	})
}

// twoHosts returns a client and the listener of relay.example.com.
func twoHosts(t *testing.T) (*simnet.Host, net.Listener) {
	t.Helper()
	internet := simnet.New(1)
	t.Cleanup(internet.Close)
	relay, client := internet.AddHost("relay", simnet.HostConfig{}), internet.AddHost("client", simnet.HostConfig{})
	internet.SetName("relay.example.com", relay.Addrs()...)
	ln, err := relay.Listen(context.Background(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	return client, ln
}

// TestDeadlines: DERP-100: a deadline that passes is recognized as one, and
// ends the connection on both sides.
func TestDeadlines(t *testing.T) {
	for name, block := range map[string]func(net.Conn) error{
		"read": func(c net.Conn) error {
			c.SetReadDeadline(time.Now().Add(time.Minute))
			_, err := c.Read(make([]byte, 10))
			return err
		},
		"write": func(c net.Conn) error {
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			_, err := c.Write(make([]byte, 16<<20)) // more than the way to a peer takes that does not read
			return err
		},
	} {
		for side, pick := range map[string]func(client, server net.Conn) (net.Conn, net.Conn){
			"client": func(client, server net.Conn) (net.Conn, net.Conn) { return client, server },
			"server": func(client, server net.Conn) (net.Conn, net.Conn) { return server, client },
		} {
			t.Run(name+" of "+side, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, server := bubblePair(t)
					c, peer := pick(client, server)
					start := time.Now()
					if err := block(c); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("error %v, want os.ErrDeadlineExceeded", err)
					}
					if took := time.Since(start); took != time.Minute {
						t.Errorf("took %v, want a minute", took)
					}
					if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("write after the deadline: %v, want net.ErrClosed", err)
					}
					if _, err := io.Copy(io.Discard, peer); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("peer: %v", err)
					}
				})
			})
		}
	}
}

// bubblePair returns both ends of a connection on a simulated network.
func bubblePair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	net, ln := twoHosts(t)
	a := newAcceptor()
	s := &http.Server{Handler: a, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second} // DERP-151; a taken connection is free of them
	go s.Serve(ln)
	t.Cleanup(func() { close(a.done); s.Close() })
	client, err := websocket.Dial(context.Background(), "ws://relay.example.com/derp", nil, net.Dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, a.accepted(t)
}

// TestCloseDoesNotWait: Close ends a write that a peer who does not read holds
// up, and takes no time itself.
func TestCloseDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := bubblePair(t)
		wrote := make(chan error, 1)
		go func() {
			_, err := server.Write(make([]byte, 16<<20))
			wrote <- err
		}()
		synctest.Wait()
		start := time.Now()
		server.Close()
		if err := <-wrote; err == nil {
			t.Error("the write has succeeded")
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("Close took %v", took)
		}
		io.Copy(io.Discard, client)
		if err := server.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
	})
}
