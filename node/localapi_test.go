package node_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// localAPI returns the local API of a node.
func localAPI(t *testing.T, n *node.Node) localapi.Node {
	t.Helper()
	api, err := n.LocalAPI()
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// The node as the local API shows it: SVC-117, SVC-128, SVC-129, SVC-131.
func TestLocalAPIShowsNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	up(t, web)
	up(t, me)
	sees(t, me, "web")
	api := localAPI(t, me)
	s := api.Snapshot()
	if s.State != localapi.Running || s.NodeKey != me.Status().Self.PublicKey || s.Netmap == nil || s.HomeRegion == 0 {
		t.Errorf("%+v", s)
	}
	ip4, _ := web.TailscaleIPs()
	for _, kind := range []string{localapi.PingDisco, localapi.PingTSMP, localapi.PingICMP, localapi.PingPeerAPI} {
		if p, err := api.Ping(within(t, patience), ip4, kind); err != nil || p.Name != "web.tailnet.test" || p.Latency <= 0 {
			t.Errorf("%s: %+v, %v", kind, p, err)
		}
	}
	key := web.Status().Self.PublicKey
	if tr := api.Traffic(key); !tr.Known || tr.TxBytes == 0 || tr.RxBytes == 0 || tr.LastSent.IsZero() || tr.LastHandshake.IsZero() {
		t.Errorf("%+v", tr)
	}
	who, err := api.WhoIs(t.Context(), ip4.String()+":80", netip.Addr{})
	if err != nil || who.Node.Key != key {
		t.Errorf("whois: %+v, %v", who, err)
	}
	if _, err := api.WhoIs(t.Context(), "100.64.0.99", netip.Addr{}); !errors.Is(err, localapi.ErrNotFound) {
		t.Errorf("whois nobody: %v", err)
	}
	if a, err := api.QueryDNS(within(t, patience), "web.tailnet.test", "A"); err != nil || len(a.Message) == 0 || a.Detail == nil {
		t.Errorf("DNS: %+v, %v", a, err)
	}
}

// A node connects for others only on its tailnet; elsewhere they go by themselves.
func TestLocalAPIDial(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	up(t, web)
	up(t, me)
	serveEcho(t, web, 7)
	api := localAPI(t, me)
	c, err := api.Dial(within(t, patience), "tcp", "web:7")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	var outside *localapi.OutsideError
	if _, err := api.Dial(within(t, patience), "tcp", "192.0.2.1:80"); !errors.As(err, &outside) || outside.Addr.String() != "192.0.2.1:80" {
		t.Errorf("outside: %v", err)
	}
	if _, err := api.Dial(within(t, patience), "tcp", "100.64.0.99:80"); err == nil || errors.As(err, &outside) {
		t.Errorf("nobody's address of the tailnet: %v", err)
	}
}

// Preferences by the local API are the node's own; routes and exit node share a
// field. Those that are refused change nothing.
func TestLocalAPIPreferences(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	me := newNode(t, tailnet, "me")
	me.AcceptRoutes, me.AcceptRoutesFrom = true, []string{"10.0.0.0/8"}
	up(t, me)
	api := localAPI(t, me)
	changes := api.Changes()
	routes := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("::/0")}
	err := api.EditPreferences(func(p *localapi.Preferences) error {
		p.AdvertiseRoutes, p.Hostname, p.AcceptDNS = routes, "renamed", false
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-changes.Preferences
	got := me.Preferences()
	if !got.AdvertiseExitNode || !slices.Equal(got.AdvertiseRoutes, routes[1:2]) || got.Hostname != "renamed" || !got.IgnoreDNS || len(got.AcceptRoutesFrom) != 1 {
		t.Errorf("%+v", got)
	}
	if p := api.Preferences(); !slices.Contains(p.AdvertiseRoutes, routes[2]) || p.ControlURL != tailnet.URL() || p.AcceptDNS {
		t.Errorf("%+v", p)
	}
	err = tailnet.Await(within(t, patience), func(all []devnet.NodeInfo) bool { return all[0].Name == "renamed" })
	if err != nil {
		t.Errorf("the tailnet does not know the new name: %v, %+v", err, tailnet.Nodes())
	}
	no := errors.New("no")
	if err := api.EditPreferences(func(p *localapi.Preferences) error { p.Hostname = "x"; return no }); !errors.Is(err, no) || me.Preferences().Hostname != "renamed" {
		t.Errorf("refused by the caller: %v, %+v", err, me.Preferences())
	}
	if err := api.EditPreferences(func(p *localapi.Preferences) error { p.Hostname = "a b"; return nil }); err == nil || me.Preferences().Hostname != "renamed" {
		t.Errorf("refused by the node: %v", err)
	}
}

// Logout forgets the login, and Login makes another node of it.
func TestLogoutThenLogin(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	me := newNode(t, tailnet, "me")
	up(t, me)
	before := me.Status().Self.PublicKey
	if err := me.Logout(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	awaitState(t, me, node.StateNeedsLogin)
	api := localAPI(t, me)
	if s := api.Snapshot(); !s.NodeKey.IsZero() || s.Netmap != nil || s.State != localapi.NeedsLogin {
		t.Errorf("%+v", s)
	}
	if err := api.Login(within(t, patience), tailnet.AuthKey(devnet.KeyOptions{})); err != nil {
		t.Fatal(err)
	}
	awaitState(t, me, node.StateRunning)
	if now := me.Status().Self.PublicKey; now == before {
		t.Error("the key is the same")
	}
}

// awaitState waits until a node is in a state.
func awaitState(t *testing.T, n *node.Node, want node.State) {
	t.Helper()
	api := localAPI(t, n)
	for ctx := within(t, patience); ; {
		changes := api.Changes()
		if n.Status().State == want {
			return
		}
		select {
		case <-changes.State:
		case <-ctx.Done():
			t.Fatalf("state %v, want %v", n.Status().State, want)
		}
	}
}

// SVC-132: what changes of health alone is told, too: here that the home relay has
// gone.
func TestLocalAPITellsOfRelays(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	me := newNode(t, tailnet, "me")
	up(t, me)
	api := localAPI(t, me)
	if err := tailnet.StopRelay(api.Snapshot().HomeRegion); err != nil {
		t.Fatal(err)
	}
	gone := func(problem string) bool { return strings.Contains(problem, "not connected to a relay") }
	for ctx := within(t, patience); ; {
		changes := api.Changes()
		if slices.ContainsFunc(api.Snapshot().Health, gone) {
			return
		}
		select {
		case <-changes.Relays:
		case <-ctx.Done():
			t.Fatalf("health %q", api.Snapshot().Health)
		}
	}
}

// SVC-169: the loopback port is a SOCKS5 proxy and the local API, each with a
// password of its own, and the API with a header that no web page sends.
func TestLoopback(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	up(t, web)
	up(t, me)
	serveEcho(t, web, 7)
	addr, proxyCred, apiCred, err := me.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	again, proxyAgain, apiAgain, err := me.Loopback()
	if err != nil || again != addr || proxyAgain != proxyCred || apiAgain != apiCred || len(proxyCred) != 32 || len(apiCred) != 32 || proxyCred == apiCred {
		t.Errorf("second call: %s %v", again, err)
	}
	for _, tt := range []struct {
		header, password string
		status           int
	}{{"localapi", apiCred, 200}, {"", apiCred, 403}, {"localapi", proxyCred, 403}, {"localapi", "", 401}} {
		if got := askLoopback(t, addr, tt.header, tt.password); got != tt.status {
			t.Errorf("%+v: %d", tt, got)
		}
	}
	c, err := dialSOCKS(t, addr, "tsnet", proxyCred, "web", 7)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "by SOCKS")
	got := make([]byte, len("by SOCKS"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "by SOCKS" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := dialSOCKS(t, addr, "tsnet", apiCred, "web", 7); err == nil {
		t.Error("a wrong password works")
	}
	me.Close()
	if _, err := dialSOCKS(t, addr, "tsnet", proxyCred, "web", 7); err == nil {
		t.Error("the port is open after Close")
	}
}

// askLoopback asks the local API for the status, and returns that of HTTP.
func askLoopback(t *testing.T, addr, header, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, patience), "GET", "http://"+addr+"/localapi/v0/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Tailscale", header)
	if password != "" {
		req.SetBasicAuth("", password)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// The end of a capture's context ends it, and one too many at a time is refused.
func TestCapturesAreBounded(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	me := newNode(t, tailnet, "me")
	up(t, me)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const most = 8
	for range most {
		if err := me.CapturePcap(ctx, t.TempDir()+"/x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := me.Capture(ctx, io.Discard); err == nil {
		t.Error("one capture too many")
	}
}
