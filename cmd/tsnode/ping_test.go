package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// output runs the command line in this process and returns what it prints.
func output(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, log bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&log)
	root.SetIn(strings.NewReader(""))
	err = root.ExecuteContext(t.Context())
	t.Logf("%v: %v\n%s%s", args, err, out.String(), log.String())
	return out.String(), err
}

// TestPing pings a peer in all the ways there are.
func TestPing(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	runningNode(t, tailnet, "web")
	flags := []string{"ping", "--socket", runningNode(t, tailnet, "me")}
	for _, tt := range []struct{ name, flag, want string }{
		{"until direct", "--until-direct", "pong from web.tailnet.test (100.64.0.1) via direct "},
		{"TSMP", "--tsmp", "TSMP pong from web.tailnet.test"},
		{"ICMP", "--icmp", "ICMP pong from web.tailnet.test"},
		{"peerAPI", "--peerapi", "peerapi pong from web.tailnet.test"},
	} {
		out, err := output(t, append(flags, tt.flag, "web")...)
		if err != nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	out, err := output(t, append(flags, "--json", "--until-direct=false", "--c", "1", "web")...)
	var line localapi.PingResult
	if jsonErr := json.Unmarshal([]byte(out), &line); err != nil || jsonErr != nil || line.NodeName != "web.tailnet.test" || line.LatencySeconds <= 0 {
		t.Errorf("--json: %v, %v, %+v", err, jsonErr, line)
	}
	if _, err := output(t, append(flags, "nobody")...); !errors.Is(err, node.ErrNameNotFound) {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := output(t, append(flags, "me")...); err == nil || !strings.Contains(err.Error(), "this node itself") {
		t.Errorf("itself: %v", err)
	}
}

// An address behind a route stands for the node that has the route; what no route
// leads to is told as such, and at once.
func TestPingBehindRoutes(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{Policy: []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "autoApprovers": {"routes": {"10.7.0.0/16": ["*"]}}}`)})
	route := netip.MustParsePrefix("10.7.0.0/16")
	_, router := runNode(t, tailnet, "router")
	socket, me := runNode(t, tailnet, "me")
	for _, text := range []string{"10.7.0.5", "8.8.8.8", "100.64.0.77", "::ffff:8.8.8.8"} {
		if _, err := output(t, "ping", "--socket", socket, text); !errors.Is(err, node.ErrNoRoute) || strings.Contains(err.Error(), "name") {
			t.Errorf("%s: %v", text, err)
		}
	}
	err := errors.Join(
		router.EditPreferences(func(p *node.Preferences) { p.AdvertiseRoutes = []netip.Prefix{route} }),
		me.EditPreferences(func(p *node.Preferences) { p.AcceptRoutes = true }))
	if err != nil {
		t.Fatal(err)
	}
	for {
		nm, changed := me.Netmap()
		if p, ok := nm.PeerByName("router"); ok && slices.Contains(p.AllowedIPs, route) {
			break
		}
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatal("no route comes")
		}
	}
	out, err := output(t, "ping", "--socket", socket, "10.7.0.5")
	if err != nil || !strings.Contains(out, "pong from router.tailnet.test (10.7.0.5) via direct") {
		t.Errorf("behind a router: %v", err)
	}
}

// TestNetcheck reports on the relay of a tailnet.
func TestNetcheck(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	out, err := output(t, "netcheck", "--login-server", tailnet.URL())
	if err != nil || !strings.Contains(out, "seen as 127.0.0.1:") || !strings.Contains(out, "dev1") {
		t.Errorf("%v", err)
	}
	out, err = output(t, "netcheck", "--socket", runningNode(t, tailnet, "me"))
	if err != nil || !strings.Contains(out, "dev1") {
		t.Errorf("with the map of the running node: %v", err)
	}
	none := httptest.NewServer(nil)
	defer none.Close()
	if _, err := output(t, "netcheck", "--login-server", none.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("no map: %v", err)
	}
}
