package node

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// What front ends ask of a node that does not run has an answer, and starts
// nothing.
func TestFrontendOfAStoppedNode(t *testing.T) {
	n := new(Node)
	if nm, changed := n.Netmap(); nm != nil || changed != nil {
		t.Errorf("netmap %v, %v", nm, changed)
	}
	if n.Routes(netip.MustParsePrefix("10.0.0.0/8"), new(netmap.Peer)) {
		t.Error("it routes")
	}
	if d := n.RelayLatency(1); d != 0 {
		t.Errorf("relay latency %v", d)
	}
	n.Wake()
	if s := n.Status(); s.State != StateStopped {
		t.Errorf("state %v", s.State)
	}
}

// VPN-49: who follows the netmap never sees one that the routes do not follow yet,
// and hears of routes that change without it.
func TestRoutesAreThoseOfTheNetmap(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	everything := netip.MustParsePrefix("0.0.0.0/0")
	newNode := func(name string) *Node {
		n := &Node{
			Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
			Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	exit, client := newNode("exit"), newNode("client")
	exit.AdvertiseExitNode, client.ExitNode = true, "exit"
	for _, n := range []*Node{exit, client} {
		if _, err := n.Up(ctx); err != nil {
			t.Fatal(err)
		}
	}
	approved := func(nm *netmap.Netmap) *netmap.Peer {
		if nm == nil {
			return nil
		}
		p, ok := nm.PeerByName("exit")
		if !ok || !slices.Contains(p.AllowedIPs, everything) {
			return nil
		}
		return p
	}
	await := func(netmap func() (*netmap.Netmap, <-chan struct{}), ok func(*netmap.Netmap) bool) {
		t.Helper()
		for {
			nm, changed := netmap()
			if ok(nm) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatal("waited in vain")
			}
		}
	}
	client.run.routing.mu.Lock() // the watcher cannot decide
	unlock := sync.OnceFunc(client.run.routing.mu.Unlock)
	defer unlock()
	if err := tailnet.ApproveRoutes("exit", everything, netip.MustParsePrefix("::/0")); err != nil {
		t.Fatal(err)
	}
	await(client.run.control.Netmap.Load, func(nm *netmap.Netmap) bool { return approved(nm) != nil })
	if nm, _ := client.Netmap(); approved(nm) != nil && !client.Routes(everything, approved(nm)) {
		t.Error("the netmap is ahead of the routes")
	}
	unlock()
	await(client.Netmap, func(nm *netmap.Netmap) bool {
		p := approved(nm)
		if p != nil && !client.Routes(everything, p) {
			t.Error("the netmap is ahead of the routes")
		}
		return p != nil
	})
	nm, changed := client.Netmap()
	if err := client.EditPreferences(func(p *Preferences) { p.ExitNode = "" }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("other preferences are told to nobody")
	}
	if client.Routes(everything, approved(nm)) {
		t.Error("it routes through an exit node that is none any more")
	}
}

// Front ends are told how far relays are, once there is a report.
func TestRelayLatency(t *testing.T) {
	info := control.NetInfo{DERPLatency: map[string]float64{"1-v4": 0.5, "1-v6": 0.25, "2-v4": 1}}
	n := &Node{run: &runtime{netInfo: actor.NewCell(info)}}
	if d := n.RelayLatency(1); d != 250*time.Millisecond {
		t.Errorf("region 1: %v", d)
	}
	if d := n.RelayLatency(3); d != 0 {
		t.Errorf("region 3: %v", d)
	}
}
