package vpn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// A testNode is a node without a tailnet.
type testNode struct {
	options StartOptions
	maps    *actor.Cell[*netmap.Netmap]
	joined  chan error // says what becomes of Up; nil: it has joined
	died    chan error // says why it has ended by itself

	mu       sync.Mutex
	traffic  map[netmap.StableID]Traffic
	woken    int
	closed   bool
	closeErr error
	accepts  bool

	closeTakes time.Duration
	mute       bool // it answers no pings

	excluded []netip.Prefix
	check    func(NetworkSettings) error // nil: all is well
}

func newTestNode(nm *netmap.Netmap) *testNode {
	return &testNode{maps: actor.NewCell(nm), died: make(chan error, 1), traffic: make(map[netmap.StableID]Traffic)}
}

// nodes returns a NewNode that hands these out, in order.
func nodes(all ...*testNode) func(StartOptions) (Node, error) {
	return func(o StartOptions) (Node, error) {
		if len(all) == 0 {
			return nil, errors.New("no more nodes")
		}
		n := all[0]
		all = all[1:]
		n.options = o
		switch {
		case o.Token == "bad":
			return nil, errors.New("the auth key is not valid")
		case o.Descriptor == 99:
			return nil, errors.New("descriptor 99: bad file descriptor")
		}
		return n, nil
	}
}

func (n *testNode) Up(ctx context.Context) error {
	if n.joined == nil {
		return nil
	}
	select {
	case err := <-n.joined:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *testNode) Netmap() (*netmap.Netmap, <-chan struct{}) { return n.maps.Load() }

func (n *testNode) Traffic() map[netmap.StableID]Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.traffic
}

func (n *testNode) setTraffic(t map[netmap.StableID]Traffic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.traffic = t
}

func (n *testNode) Accepts(*netmap.Peer, netip.Prefix) bool { return n.accepts }

func (n *testNode) Excluded(context.Context, *netmap.Netmap) []netip.Prefix { return n.excluded }

func (n *testNode) Check(s NetworkSettings) error {
	if n.check == nil {
		return nil
	}
	return n.check(s)
}

func (n *testNode) Ping(ctx context.Context, a netip.Addr, _ bool) (Pong, error) {
	if n.mute {
		return Pong{}, errors.New("no answer")
	}
	return Pong{Latency: time.Duration(a.As4()[3]) * time.Millisecond, Direct: true}, nil
}

func (n *testNode) Wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.woken++
}

func (n *testNode) Wait(ctx context.Context) error {
	select {
	case err := <-n.died:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *testNode) RelayLatency(region int) time.Duration {
	return time.Duration(region) * 20 * time.Millisecond
}

func (n *testNode) Close() error {
	if n.closeTakes > 0 {
		time.Sleep(n.closeTakes) // fake time
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return n.closeErr
}

func (n *testNode) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

func (n *testNode) wakes() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.woken
}

// testPeer is the n-th peer of a tailnet.
func testPeer(n int) *netmap.Peer {
	addr := netip.AddrFrom4([4]byte{100, 64 + byte(n>>16), byte(n >> 8), byte(n)})
	return &netmap.Peer{
		ID: netmap.NodeID(n), StableID: netmap.StableID(fmt.Sprintf("n%d", n)), Name: fmt.Sprintf("peer-%d.tailnet.test.", n),
		User: netmap.UserID(1 + n%3), Online: netmap.OnlineYes, HomeDERP: 1, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 32)},
	}
}

// testNetmap is a tailnet with those peers.
func testNetmap(peers ...*netmap.Peer) *netmap.Netmap {
	peers = slices.SortedFunc(slices.Values(peers), func(a, b *netmap.Peer) int { return cmp.Compare(a.ID, b.ID) })
	return &netmap.Netmap{
		Domain: "example.org", Peers: peers,
		Self: &netmap.Peer{
			ID: 1 << 20, StableID: "self", Name: "self.tailnet.test.",
			Addresses: []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32"), netip.MustParsePrefix("fd7a:115c:a1e0::1/128")},
		},
		DERP: &netmap.DERPMap{Regions: map[int]*netmap.Region{1: {RegionID: 1, RegionCode: "ams", RegionName: "Amsterdam"}}},
		DNS:  &netmap.DNSConfig{Proxied: true, Domains: []string{"tailnet.test"}, Routes: map[string][]netmap.Resolver{"corp.example.": {{Addr: "10.0.0.53"}}}},
		Users: map[netmap.UserID]netmap.UserProfile{
			1: {LoginName: "Ann@example.org"}, 2: {LoginName: "bob@example.org"}, 3: {LoginName: "ann@example.net"},
		},
	}
}

// testStart is what the tests' managers start with.
func testStart() StartOptions {
	return StartOptions{
		ControlURL: "https://control.example", Token: "tskey-secret-token", Headers: http.Header{"X-Gate": {"open sesame"}},
		DeviceOS: "linux", AppVersion: "1.0",
	}
}
