package devnet

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// memoryKeys keeps credentials as long as a test lasts.
type memoryKeys struct {
	mu    sync.Mutex
	creds control.Credentials
}

func (k *memoryKeys) Load(context.Context) (control.Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.creds, nil
}

func (k *memoryKeys) Save(_ context.Context, c control.Credentials) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.creds = c
	return nil
}

// A testPinger answers each ping at once.
type testPinger struct{}

func (testPinger) Ping(_ context.Context, to netip.Addr, kind string) (control.PingResponse, error) {
	return control.PingResponse{Type: kind, IP: to.String(), LatencySeconds: 0.001}, nil
}

// A client is one of package control, the product's own.
type client struct {
	*control.Client
	t *testing.T
}

// startClient starts a client; change may alter its configuration.
func startClient(t *testing.T, tailnet *Net, name string, change ...func(*control.Config)) *client {
	t.Helper()
	cfg := control.Config{
		URL: tailnet.URL(), Network: host.OS{}, Machine: key.NewMachine(), Keys: new(memoryKeys), Disco: key.NewDisco().Public(),
		Hostinfo: actor.NewCell(control.Hostinfo{Hostname: name}), Home: actor.NewCell(1), Pinger: testPinger{}, Roots: tailnet.Roots(),
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := control.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return &client{c, t}
}

func withAuthKey(text string) func(*control.Config) {
	return func(c *control.Config) { c.AuthKey = text }
}

// until waits for a netmap.
func (c *client) until(what string, wanted func(*netmap.Netmap) bool) *netmap.Netmap {
	c.t.Helper()
	after := time.After(patience)
	for {
		m, changed := c.Netmap.Load()
		if m != nil && wanted(m) {
			return m
		}
		select {
		case <-changed:
		case <-after:
			c.t.Fatalf("no netmap with %s, but %+v; status %+v", what, m, c.Status.Get())
		}
	}
}

func sees(name string) func(*netmap.Netmap) bool {
	return func(m *netmap.Netmap) bool { _, ok := m.PeerByName(name); return ok }
}

func seesNot(name string) func(*netmap.Netmap) bool {
	return func(m *netmap.Netmap) bool { _, ok := m.PeerByName(name); return !ok }
}

// The product's own client, in all modes of the server.
func TestClients(t *testing.T) {
	for name, c := range map[string]Config{"hosted": {}, "TLS": {TLS: true}, "Headscale": {Headscale: true}, "relays": {Relays: 3}, "none": {Relays: -1}} {
		t.Run(name, func(t *testing.T) {
			n := New(t, c)
			k := n.AuthKey(KeyOptions{Reusable: true, Ephemeral: true})
			a := startClient(t, n, "a", withAuthKey(k))
			b := startClient(t, n, "b", withAuthKey(k))
			m := a.until("online peer b at home", func(m *netmap.Netmap) bool {
				p, ok := m.PeerByName("b")
				return ok && p.Online == netmap.OnlineYes && p.HomeDERP == 1
			})
			if m.MagicDNSSuffix() != n.Domain() || len(m.Filter) != 1 || m.Users[m.Self.User].LoginName != "dev@tailnet.test" {
				t.Errorf("netmap %+v", m)
			}
			if m.DERP == nil || len(m.DERP.Regions) != max(n.cfg.Relays, 0) {
				t.Errorf("relays %+v", m.DERP)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := b.Logout(ctx); err != nil {
				t.Error(err)
			}
			a.until("no peer b", seesNot("b"))
		})
	}
}

// The client resumes its session, and starts anew after the server has been
// away.
func TestClientReconnects(t *testing.T) {
	n := New(t, Config{})
	k := n.AuthKey(KeyOptions{Reusable: true})
	a := startClient(t, n, "a", withAuthKey(k))
	a.until("itself", func(m *netmap.Netmap) bool { return m.Self.BaseName() == "a" })
	for _, step := range []struct {
		name string
		do   func() error
	}{{"b", n.DropStreams}, {"c", n.RestartControl}, {"d", func() error { return n.DropStream("a") }}} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		newRawNode(t, n, step.name).join(KeyOptions{})
		a.until("peer "+step.name, sees(step.name))
	}
	n.StopControl()
	n.StopControl() // twice is nothing
	if err := n.StartControl(); err != nil {
		t.Fatal(err)
	}
	if err := n.StartControl(); err != nil {
		t.Fatal(err)
	}
	awaitOnline(t, n, "a", true)
}

// A removed ephemeral client joins again by itself, with a key that allows it.
func TestClientRemoved(t *testing.T) {
	n := New(t, Config{})
	ephemeral := func(c *control.Config) { c.Ephemeral = true }
	a := startClient(t, n, "a", withAuthKey(n.AuthKey(KeyOptions{Reusable: true})), ephemeral)
	awaitOnline(t, n, "a", true)
	before, _ := n.Node("a")
	if err := n.Remove("a"); err != nil {
		t.Fatal(err)
	}
	awaitOnline(t, n, "a", true)
	if after, _ := n.Node("a"); after.ID == before.ID {
		t.Error("the removed node is still there")
	}
	a.until("itself", func(m *netmap.Netmap) bool { return m.Self.ID != before.ID })
}

// A key that runs out and is renewed, at run time (CTL-47).
func TestClientKeyExpires(t *testing.T) {
	n := New(t, Config{})
	a := startClient(t, n, "a", withAuthKey(n.AuthKey(KeyOptions{})))
	awaitOnline(t, n, "a", true)
	if err := n.ExpireKey("a"); err != nil {
		t.Fatal(err)
	}
	a.until("expired key", func(m *netmap.Netmap) bool { return m.Self.Expired })
	if err := n.SetKeyExpiry("a", time.Time{}); err != nil {
		t.Fatal(err)
	}
	a.until("good key", func(m *netmap.Netmap) bool { return !m.Self.Expired })
}

// A bad key is told as what it is.
func TestClientBadKey(t *testing.T) {
	for _, headscale := range []bool{false, true} {
		n := New(t, Config{Headscale: headscale})
		used := n.AuthKey(KeyOptions{})
		newRawNode(t, n, "first").register(used)
		for _, k := range []string{"tskey-auth-none", used, n.AuthKey(KeyOptions{Lifetime: -time.Second})} {
			c := startClient(t, n, "a", withAuthKey(k))
			after := time.After(patience)
			for {
				status, changed := c.Status.Load()
				if errors.Is(status.Err, control.ErrBadAuthKey) {
					break
				}
				select {
				case <-changed:
				case <-after:
					t.Fatalf("headscale %v: status %+v, want ErrBadAuthKey", headscale, status)
				}
			}
		}
	}
}
