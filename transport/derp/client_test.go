package derp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
)

// client returns a client of the region whose only node is host.
func (p *pipes) client(host string, o derp.ClientOptions) *derp.Client {
	o.Dialer = &derp.Dialer{Network: p, PlainHTTP: true}
	return derp.NewRegionClient(key.NewNode(), func() *netmap.Region { return plainRegion(1, host) }, o)
}

// quietly plays a relay that says nothing after the login.
func quietly(c *script) { c.collect() }

// expectMessage receives until a message other than a ServerInfo comes.
func expectMessage(t *testing.T, c *derp.Client) (derp.Message, int) {
	t.Helper()
	for {
		m, generation, err := c.RecvDetail()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(derp.ServerInfo); !ok {
			return m, generation
		}
	}
}

// TestClientReconnects: DERP-112, DERP-114: nothing is dialed until it is
// needed, a failed call is not tried again, and the next one connects anew.
func TestClientReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		c := p.client("one", derp.ClientOptions{})
		defer c.Close()
		if err := c.Send(c.SelfPublicKey(), nil); err == nil || !strings.Contains(err.Error(), "region 1: node one: connection refused") {
			t.Errorf("Send to a relay that is not there: %v", err)
		}
		server, stop := p.serve("one:3340")
		if p.dialed("one:3340") != 2 || !c.ServerPublicKey().IsZero() {
			t.Errorf("%d dials of one call and two families", p.dialed("one:3340"))
		}
		for generation := 1; generation <= 3; generation++ {
			m, got, err := c.RecvDetail()
			if m != (derp.ServerInfo{Version: 2}) || got != generation || err != nil {
				t.Fatalf("first message %v of connection %d, %v; want number %d", m, got, err, generation)
			}
			if c.ServerPublicKey() != server.PublicKey() {
				t.Errorf("key %v, want the relay's", c.ServerPublicKey())
			}
			if err := c.Send(c.SelfPublicKey(), []byte("to myself")); err != nil {
				t.Fatal(err)
			}
			if m, _ := expectMessage(t, c); string(m.(derp.ReceivedPacket).Data) != "to myself" {
				t.Errorf("received %q", m)
			}
			stop()
			if m, got, err := c.RecvDetail(); err == nil || got != generation {
				t.Errorf("%v of connection %d of a relay that is gone", m, got)
			}
			server, stop = p.serve("one:3340")
		}
		stop()
	})
}

// TestClientConnectsOnce: DERP-112: any number of calls share one attempt; one
// that will not wait does not disturb the others.
func TestClientConnectsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		p.delays["one:3340"] = time.Second
		defer p.serveScript("one:3340", quietly)()
		c := p.client("one", derp.ClientOptions{})
		defer c.Close()
		var calls sync.WaitGroup
		for range 5 {
			calls.Go(func() {
				if err := c.Connect(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := c.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call that waits 1 ms: %v", err)
		}
		calls.Wait()
		if n := p.dialed("one:3340"); n != 2 {
			t.Errorf("%d dials, want one in each family", n)
		}
	})
}

// TestClientBudget: DERP-121: an attempt takes 10 s at most, whatever the relay
// does not do.
func TestClientBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		defer p.serveHTTP("one:3340", silent, func() error { return nil })()
		c := p.client("one", derp.ClientOptions{})
		start := time.Now()
		if err := c.Connect(t.Context()); err == nil || time.Since(start) != 10*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
	})
}

// TestClientNeverConnects: DERP-113, DERP-117.
func TestClientNeverConnects(t *testing.T) {
	p := newPipes()
	c := p.client("one", derp.ClientOptions{})
	_, noAddress := c.LocalAddr()
	for i, err := range []error{noAddress, c.SendPing([8]byte{}), c.SendPong([8]byte{}), c.Ping(t.Context())} {
		if err == nil || !strings.Contains(err.Error(), "not connected") {
			t.Errorf("call %d: %v", i, err)
		}
	}
	c.NotePreferred(true)
	if st := c.TLSConnectionState(); st != nil {
		t.Errorf("TLS state %v", st)
	}
	if n := p.dialed("one:3340"); n != 0 {
		t.Errorf("%d dials", n)
	}
	c = derp.NewRegionClient(key.NewNode(), func() *netmap.Region { return nil }, derp.ClientOptions{})
	if err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "does not have the client's region") {
		t.Errorf("no region: %v", err)
	}
}

// TestClientClose: DERP-116: Close is final from every state.
func TestClientClose(t *testing.T) {
	for name, busy := range map[string]func(p *pipes, c *derp.Client) error{
		"idle": nil,
		"dialing": func(p *pipes, c *derp.Client) error {
			p.delays["one:3340"] = time.Hour
			return c.Connect(context.Background())
		},
		"logging in": func(p *pipes, c *derp.Client) error {
			p.delays["one:3340"] = 0
			return c.Connect(context.Background())
		},
		"receiving": func(_ *pipes, c *derp.Client) error {
			for {
				if _, err := c.Recv(); err != nil {
					return err
				}
			}
		},
		"pinging": func(_ *pipes, c *derp.Client) error {
			c.Recv()
			return c.Ping(context.Background())
		},
		"sending": func(_ *pipes, c *derp.Client) error {
			for {
				if err := c.Send(key.NodePublic{}, nil); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				play := func(c *script) { <-c.ctx.Done() }
				if name == "pinging" {
					play = quietly
				}
				if name == "logging in" {
					defer p.serveHTTP("one:3340", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), func() error { return nil })()
				} else {
					defer p.serveScript("one:3340", play)()
				}
				c := p.client("one", derp.ClientOptions{})
				ended := make(chan error, 1)
				if busy != nil {
					go func() { ended <- busy(p, c) }()
					synctest.Wait()
				} else {
					ended <- derp.ErrClientClosed
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if err := <-ended; !errors.Is(err, derp.ErrClientClosed) {
					t.Errorf("the call under way: %v", err)
				}
				_, received := c.Recv()
				_, addr := c.LocalAddr()
				for i, err := range []error{
					received, addr, c.Connect(context.Background()), c.Send(key.NodePublic{}, nil), c.ForwardPacket(key.NodePublic{}, key.NodePublic{}, nil),
					c.ClosePeer(key.NodePublic{}), c.WatchConnections(), c.SendPing([8]byte{}), c.SendPong([8]byte{}), c.Ping(context.Background()), c.Close(),
				} {
					if !errors.Is(err, derp.ErrClientClosed) {
						t.Errorf("call %d after Close: %v", i, err)
					}
				}
			})
		})
	}
}

// TestClientTells: DERP-25, DERP-118, DERP-120: what a relay is told on every
// connection, in order, and what only when it changes.
func TestClientTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		told, infos := make(chan [][]byte, 1), make(chan derp.ClientInfo, 1)
		defer p.serveScript("one:3340", func(c *script) {
			infos <- c.info
			told <- c.collect()
		})()
		mesh := key.NewMesh()
		c := p.client("one", derp.ClientOptions{
			Info: derp.ClientInfo{MeshKey: mesh, IsProber: true, AppName: "test"}, WatchConnections: true,
		})
		defer c.Close()
		home, away := derp.AppendNotePreferred(nil, true), derp.AppendNotePreferred(nil, false)
		watch := derp.AppendHeader(nil, derp.FrameWatchConns, 0)
		for i, tt := range []struct {
			before, during func()
			want           [][]byte
		}{
			{func() {}, func() { c.NotePreferred(true); c.NotePreferred(true) }, [][]byte{watch, home}},
			{func() {}, func() {}, [][]byte{home, watch}},
			{func() { c.SetCanAckPings(true) }, func() { c.NotePreferred(false) }, [][]byte{home, watch, away}},
			{func() { c.NotePreferred(true); c.NotePreferred(false) }, func() {}, [][]byte{watch}},
			{func() {}, func() { c.WatchConnections(); c.ClosePeer(key.NodePublic{}) }, [][]byte{watch, watch, derp.AppendClosePeer(nil, key.NodePublic{})}},
		} {
			tt.before()
			if _, err := c.Recv(); err != nil {
				t.Fatal(err)
			}
			tt.during()
			synctest.Wait()
			p.hangUp()
			c.Recv()
			if got := <-told; !cmp.Equal(got, tt.want) {
				t.Errorf("connection %d: told %x, want %x", i+1, got, tt.want)
			}
			if info := <-infos; !info.MeshKey.Equal(mesh) || !info.IsProber || info.AppName != "test" || info.Version != 2 || info.CanAckPings != (i >= 2) {
				t.Errorf("connection %d: login %+v", i+1, info)
			}
		}
	})
}

// TestClientPing: DERP-119: the answer to Ping ends there, another Pong goes to
// the caller of Recv, and 5 s are enough.
func TestClientPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		defer p.serveScript("one:3340", func(c *script) {
			b, _ := c.next()
			c.Write(derp.AppendPing(nil, derp.FramePong, [8]byte([]byte("of other"))))
			c.Write(derp.AppendPing(nil, derp.FramePong, [8]byte(b)))
			c.Write(derp.AppendPing(nil, derp.FramePong, [8]byte(b))) // once more
			c.collect()
		})()
		c := p.client("one", derp.ClientOptions{})
		defer c.Close()
		if _, err := c.Recv(); err != nil {
			t.Fatal(err)
		}
		pongs := make(chan derp.Message, 10)
		go func() {
			for {
				m, err := c.Recv()
				if err != nil {
					close(pongs)
					return
				}
				pongs <- m
			}
		}()
		if err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if m := <-pongs; m != derp.Pong([]byte("of other")) {
			t.Errorf("%v, want the pong of another ping", m)
		}
		synctest.Wait()
		if n := len(pongs); n != 1 {
			t.Errorf("%d more pongs, want only the one that came again", n)
		}
		start := time.Now()
		if err := c.Ping(t.Context()); err == nil || time.Since(start) != 5*time.Second {
			t.Errorf("a ping without an answer: %v after %v", err, time.Since(start))
		}
		c.Close()
		for range pongs {
		}
	})
}

// TestServerKey: DERP-26: a relay with another key than the expected one does
// not get a login that it could read.
func TestServerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		server, stop := p.serve("one:3340")
		defer stop()
		c := p.client("one", derp.ClientOptions{ServerKey: server.PublicKey()})
		defer c.Close()
		if m, err := c.Recv(); err != nil || m != (derp.ServerInfo{Version: 2}) {
			t.Errorf("%v, %v of the expected relay", m, err)
		}
		other := p.client("one", derp.ClientOptions{ServerKey: key.NewNode().Public()})
		defer other.Close()
		if m, err := other.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("%v, %v of another relay", m, err)
		}
	})
	st := newSite(t, 1)
	c := derp.NewRegionClient(key.NewNode(), st.region, derp.ClientOptions{ServerKey: key.NewNode().Public()})
	defer c.Close()
	if err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "relay has the key") {
		t.Errorf("TLS told another key: %v", err)
	}
}

// TestClientTLS: DERP-117: what a client says of its connection over TLS.
func TestClientTLS(t *testing.T) {
	st := newSite(t, 1)
	c := derp.NewRegionClient(key.NewNode(), st.region, derp.ClientOptions{})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := c.TLSConnectionState(); st == nil || !st.HandshakeComplete {
		t.Errorf("TLS state %+v", st)
	}
	if a, err := c.LocalAddr(); err != nil || !a.(*net.TCPAddr).IP.IsLoopback() {
		t.Errorf("local address %v, %v", a, err)
	}
	if want := "derp.Client(region 1 " + st.server.PublicKey().Short() + ")"; c.String() != want {
		t.Errorf("%v, want %s", c, want)
	}
	c.Close()
	if c.TLSConnectionState() != nil {
		t.Error("TLS state of a closed client")
	}
}
