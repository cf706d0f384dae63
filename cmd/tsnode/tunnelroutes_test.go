//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/vpn"
)

// Section 7.2: a tunnel with an exit node asks for everything, but for the networks
// that the machine is in, if wanted, and without marks the servers.
func TestTunnelExitNode(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	exit := &node.Node{
		Hostname: "exit", ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), AdvertiseExitNode: true,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	defer exit.Close()
	if _, err := exit.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	everything := netip.MustParsePrefix("0.0.0.0/0")
	if err := tailnet.ApproveRoutes("exit", everything, netip.MustParsePrefix("::/0")); err != nil {
		t.Fatal(err)
	}
	for _, lan := range []bool{false, true} {
		asked := make(chan vpn.NetworkSettings, 8)
		f := newFronted(t, func(tunnel *vpn.Tunnel) {
			tunnel.AlwaysSettings = true
			s := &settings.Settings{
				Identity: settings.Identity{Hostname: "laptop", Ephemeral: true},
				Routes:   settings.Routes{ExitNode: "exit", ExitNodeAllowLANAccess: lan},
			}
			tunnel.NewNode = func(start vpn.StartOptions) (vpn.Node, error) { return newTunnelNode(s, start) }
		}, func(_ context.Context, s vpn.NetworkSettings) error {
			asked <- s
			return nil
		})
		if err := f.Start(t.Context(), startOf(tailnet)); err != nil {
			t.Fatal(err)
		}
		s := <-asked
		for !slices.Contains(s.IPv4.Included, everything) {
			s = <-asked
		}
		var want []netip.Prefix
		if lan {
			want = ownNetworks()
		}
		if !host.MayMark() {
			want = append(want, netip.MustParsePrefix("127.0.0.1/32")) // of devnet's servers
		}
		got := slices.Concat(s.IPv4.Excluded, s.IPv6.Excluded)
		if len(got) != len(want) || slices.ContainsFunc(want, func(p netip.Prefix) bool { return !slices.Contains(got, p) }) {
			t.Errorf("LAN access %v: out of the tunnel are %v, want %v", lan, got, want)
		}
		f.stops(t)
	}
}

// Section 7.2: addresses of servers come from URL and map, else from their names,
// which are asked for until they are known.
func TestServers(t *testing.T) {
	asked := 0
	s := servers{lookup: func(_ context.Context, _, name string) ([]netip.Addr, error) {
		if asked++; name == "far.example" && asked < 3 {
			return nil, errors.New("no answer")
		}
		return []netip.Addr{netip.MustParseAddr("203.0.113." + fmt.Sprint(len(name)))}, nil
	}}
	relays := &netmap.DERPMap{Regions: map[int]*netmap.Region{
		1: {Nodes: []*netmap.DERPNode{
			{HostName: "a.example", IPv4: "192.0.2.1", IPv6: "2001:db8::1"}, {HostName: "b.example", IPv4: "192.0.2.2", IPv6: "none"},
			{HostName: "far.example"},
		}},
		2: nil,
	}}
	for _, want := range []string{
		"[192.0.2.1 192.0.2.2 203.0.113.15 2001:db8::1]",
		"[192.0.2.1 192.0.2.2 203.0.113.11 203.0.113.15 2001:db8::1]",
		"[192.0.2.1 192.0.2.2 203.0.113.11 203.0.113.15 2001:db8::1]",
	} {
		if got := fmt.Sprint(s.addrs(t.Context(), "https://control.example:8443/x", relays)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
	if got := fmt.Sprint(s.addrs(t.Context(), "http://[2001:db8::7]:80", nil)); got != "[2001:db8::7]" {
		t.Errorf("an address in the URL: %s", got)
	}
}
