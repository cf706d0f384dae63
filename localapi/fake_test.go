package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second // for what takes milliseconds

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// waitFor waits until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t); !ok(); {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain: " + what)
		case <-time.After(time.Millisecond):
		}
	}
}

// A fakeNode is a Node of which a test sets what it is.
type fakeNode struct {
	snapshot *actor.Cell[Snapshot]
	prefs    *actor.Cell[Preferences]
	relays   *actor.Cell[string] // what Health says of them
	pingTime time.Duration
	traffic  Traffic
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	packets  []byte

	mu     sync.Mutex
	logins []string
}

// Addresses of the fake tailnet.
var (
	selfIP  = netip.MustParseAddr("100.64.0.1")
	selfIP6 = netip.MustParseAddr("fd7a:115c:a1e0::1")
	webIP   = netip.MustParseAddr("100.64.0.2")
)

var selfKey, webKey = key.NewNode().Public(), key.NewNode().Public()

// testMap is a tailnet of this node and the node "web", an exit node.
func testMap() *netmap.Netmap {
	prefix := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	own := []netip.Prefix{prefix(selfIP), prefix(selfIP6)}
	created := netmap.InstantOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return &netmap.Netmap{
		Self: &netmap.Peer{
			ID: 1, StableID: "n1", Name: "me.tailnet.test.", Hostname: "me", OS: "linux", User: 7, Key: selfKey, Created: created,
			Addresses: own, AllowedIPs: own, PeerAPI4: 5000, CapMap: netmap.CapMap{"funnel": nil, "admin": nil},
		},
		Peers: []*netmap.Peer{{
			ID: 2, StableID: "n2", Name: "web.tailnet.test.", Hostname: "Web", OS: "linux", User: 7, Sharer: 8, Key: webKey, Created: created,
			Disco: key.NewDisco().Public(), Addresses: []netip.Prefix{prefix(webIP)}, AllowedIPs: []netip.Prefix{prefix(webIP), default4, default6},
			Tags: []string{"tag:web"}, HomeDERP: 1, Online: netmap.OnlineYes, LastSeen: created,
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41641")},
		}},
		DERP:   &netmap.DERPMap{Regions: map[int]*netmap.Region{1: {RegionID: 1, RegionCode: "one"}}},
		DNS:    &netmap.DNSConfig{Proxied: true, CertDomains: []string{"me.tailnet.test"}},
		Domain: "example.org",
		Users:  map[netmap.UserID]netmap.UserProfile{7: {ID: 7, LoginName: "ann@example.org", DisplayName: "Ann"}},
	}
}

func newFake() *fakeNode {
	return &fakeNode{
		snapshot: actor.NewCell(Snapshot{State: Running, NodeKey: selfKey, Netmap: testMap(), HomeRegion: 1}),
		prefs:    actor.NewCell(Preferences{ControlURL: "https://control.test", AcceptDNS: true}),
		relays:   actor.NewCell(""),
	}
}

func (f *fakeNode) Snapshot() *Snapshot {
	s := f.snapshot.Get()
	if problem := f.relays.Get(); problem != "" {
		s.Health = append(slices.Clone(s.Health), problem)
	}
	return &s
}

func (f *fakeNode) Changes() Changes {
	_, state := f.snapshot.Load()
	_, prefs := f.prefs.Load()
	_, relays := f.relays.Load()
	return Changes{State: state, Netmap: state, Preferences: prefs, Relays: relays}
}

func (f *fakeNode) Traffic(key.NodePublic) Traffic { return f.traffic }

func (f *fakeNode) WhoIs(_ context.Context, addr string, dst netip.Addr) (*Identity, error) {
	switch addr {
	case "100.64.0.2:80":
		caps := map[string][]json.RawMessage{"example.org/cap": {json.RawMessage(`{"a":1}`)}}
		if dst.IsValid() {
			caps = nil
		}
		return &Identity{Node: testMap().Peers[0], User: testMap().Users[7], Caps: caps}, nil
	case "nonsense":
		return nil, errors.New("want an IP address")
	}
	return nil, fmt.Errorf("who is %s: %w", addr, ErrNotFound)
}

func (f *fakeNode) Ping(ctx context.Context, to netip.Addr, kind string) (*Pong, error) {
	if to != webIP {
		return nil, errors.New("no route")
	}
	if err := actor.Sleep(ctx, f.pingTime); err != nil {
		return nil, err
	}
	return &Pong{Name: "web.tailnet.test", Latency: 5 * time.Millisecond, Direct: netip.MustParseAddrPort("192.0.2.1:41641"), PeerAPIPort: 5001}, nil
}

func (f *fakeNode) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return f.dial(ctx, network, address)
}

func (f *fakeNode) QueryDNS(_ context.Context, name, typ string) (*DNSAnswer, error) {
	return &DNSAnswer{Message: []byte(name + typ), Resolvers: []string{"192.0.2.53"}, Detail: map[string]string{"Code": "NOERROR"}}, nil
}

func (f *fakeNode) Preferences() Preferences { return f.prefs.Get() }

func (f *fakeNode) EditPreferences(edit func(*Preferences) error) error {
	p := f.prefs.Get()
	if err := edit(&p); err != nil {
		return err
	}
	f.prefs.Store(p)
	return nil
}

func (f *fakeNode) Login(_ context.Context, authKey string) error {
	if authKey == "bad" {
		return errors.New("the control server refused the auth key")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logins = append(f.logins, authKey)
	return nil
}

func (f *fakeNode) Logout(context.Context) error {
	f.snapshot.Store(Snapshot{State: NeedsLogin})
	return nil
}

func (f *fakeNode) Capture(ctx context.Context, w io.Writer) error {
	for {
		if _, err := w.Write(f.packets); err != nil {
			return err
		}
		if len(f.packets) < 1<<10 { // else a test wants as much as the client takes
			<-ctx.Done()
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// serve serves a node at a socket of its own until the test ends.
func serve(t *testing.T, n Node, edit func(*Config)) (s *Server, c *Client) {
	t.Helper()
	config := Config{Node: n, Version: "1.2.3-test", Capability: 130, Operator: -1}
	if edit != nil {
		edit(&config)
	}
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s = New(config)
	run(t, s, ln)
	return s, NewClient(path)
}

// run runs a server until the test ends.
func run(t *testing.T, s *Server, ln net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
}
