package node_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
)

// grantPolicy lets everybody in, gives members and the tag roles towards all, and
// some towards one address only.
const grantPolicy = `{
	"tagOwners": {"tag:robot": ["dev@"]},
	"grants": [
		{"src": ["*"], "dst": ["*"], "ip": ["*"]},
		{"src": ["autogroup:member"], "dst": ["*"], "app": {"example.com/role": [{"name": "reader"}]}},
		{"src": ["tag:robot"], "dst": ["*"], "app": {"example.com/role": [{"name": "robot"}], "example.com/flag": []}},
		{"src": ["*"], "dst": ["*"], "app": {"example.com/role": [{"name": "guest"}]}},
	],
}`

type role struct{ Name string }

// roles returns the names in a capability.
func roles(t *testing.T, w *node.WhoIsResponse) (names []string) {
	t.Helper()
	values, err := node.CapValues[role](w, "example.com/role")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		names = append(names, v.Name)
	}
	return names
}

// identityNodes are a server, a member of the tailnet and a tagged node.
func identityNodes(t *testing.T) (tailnet *devnet.Net, server, member, robot *node.Node) {
	tailnet = startDevnet(t, devnet.Config{Policy: []byte(grantPolicy)})
	server, member, robot = newNode(t, tailnet, "server"), newNode(t, tailnet, "member"), makeNode(t, tailnet, "robot")
	robot.AuthKey = tailnet.AuthKey(devnet.KeyOptions{Tags: []string{"tag:robot"}})
	t.Cleanup(func() { robot.Close() })
	for _, n := range []*node.Node{server, member, robot} {
		up(t, n)
	}
	sees(t, server, "member", "robot")
	return tailnet, server, member, robot
}

// TestWhoIs: by address with and without port, of both families, and by node key
// (SVC-117); a tagged node has the profile of tags (SVC-119); the capabilities
// are those towards us, values in the order of the rules (SVC-118).
func TestWhoIs(t *testing.T) {
	_, server, member, robot := identityNodes(t)
	ip4, ip6 := member.TailscaleIPs()
	k := member.Status().Self.PublicKey
	for _, addr := range []string{ip4.String(), ip6.String(), netip.AddrPortFrom(ip4, 99).String(), netip.AddrPortFrom(ip6, 99).String(), "::ffff:" + ip4.String(), k.String()} {
		who, err := server.WhoIs(t.Context(), addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if who.Node.HostName != "member" || who.UserProfile.LoginName != "dev@tailnet.test" || who.Node.User != who.UserProfile.LoginName || !slices.Equal(roles(t, who), []string{"reader", "guest"}) {
			t.Errorf("%s: %+v", addr, who)
		}
	}
	tagged, _ := robot.TailscaleIPs()
	who, err := server.WhoIs(t.Context(), tagged.String())
	if err != nil {
		t.Fatal(err)
	}
	_, flag := who.CapMap["example.com/flag"]
	if who.UserProfile.LoginName != node.TaggedDevices || !slices.Equal(who.Node.Tags, []string{"tag:robot"}) || !slices.Equal(roles(t, who), []string{"robot", "guest"}) || !flag {
		t.Errorf("tagged: %+v", who)
	}
	own, _ := server.TailscaleIPs()
	if who, err := server.WhoIs(t.Context(), own.String()); err != nil || who.Node.HostName != "server" {
		t.Errorf("ourselves: %+v, %v", who, err)
	}
	for addr, want := range map[string]string{
		"100.64.99.99": "no node of the tailnet", "10.0.0.1:80": "no node", "nodekey:" + strings.Repeat("0", 63) + "1": "no node",
		"nodekey:short": "nodekey", "member": "want an IP address", "": "want an IP address",
	} {
		if who, err := server.WhoIs(t.Context(), addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", addr, who, err, want)
		}
	}
	if c := server.Capabilities(ip4, own); !slices.Equal(roles(t, &node.WhoIsResponse{CapMap: c}), []string{"reader", "guest"}) {
		t.Errorf("capabilities towards an address: %v", c)
	}
	if c := server.Capabilities(ip4, netip.MustParseAddr("8.8.8.8")); len(c) != 0 {
		t.Errorf("capabilities towards somebody else: %s", c)
	}
}

// SVC-118: capabilities towards a service are those towards its addresses of the
// same family, and towards one of them those towards that one.
func TestServiceCapabilities(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	server, member := newNode(t, tailnet, "server"), newNode(t, tailnet, "member")
	up(t, server)
	up(t, member)
	src, src6 := member.TailscaleIPs()
	hosted := json.RawMessage(`{"svc:web": ["100.65.0.1", "100.65.0.2", "fd7a:115c:a1e0::65"], "svc:db": ["100.65.0.3"]}`)
	if err := tailnet.SetAttributes("server", netmap.CapMap{"service-host": {hosted}}); err != nil {
		t.Fatal(err)
	}
	grant := func(dst, name string) string {
		return `{"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["` + dst + `"], "CapMap": {"example.com/role": [{"name": "` + name + `"}]}}]}`
	}
	frame := `{"PacketFilters": {"services": [` + grant("100.65.0.2/32", "second") + `,` + grant("100.65.0.0/30", "any") + `,` + grant("fd7a:115c:a1e0::65/128", "six") + `]}}`
	if err := tailnet.SendRaw("server", []byte(frame)); err != nil {
		t.Fatal(err)
	}
	of := func(caps map[string][]json.RawMessage) string {
		return strings.Join(roles(t, &node.WhoIsResponse{CapMap: caps}), " ")
	}
	eventually(t, "the grants and the attribute", func() bool { return of(server.ServiceCapabilities(src6, "svc:web")) == "six" })
	for _, test := range []struct {
		what, got, want string
	}{
		{"both addresses", of(server.ServiceCapabilities(src, "svc:web")), "any second any"},
		{"the other service", of(server.ServiceCapabilities(src, "svc:db")), "any"},
		{"one address", of(server.Capabilities(src, netip.MustParseAddr("100.65.0.2"))), "second any"},
		{"no service", of(server.ServiceCapabilities(src, "svc:none")), ""},
		{"a service that others host", of(member.ServiceCapabilities(src, "svc:web")), ""},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", test.what, test.got, test.want)
		}
	}
	var idle node.Node
	if idle.ServiceCapabilities(src, "svc:web") != nil {
		t.Error("a node that does not run grants something")
	}
}

// TestWhoIsBeforeStart: a node that is not there knows nobody.
func TestWhoIsBeforeStart(t *testing.T) {
	var n node.Node
	if _, err := n.WhoIs(t.Context(), "100.64.0.1"); !errors.Is(err, node.ErrNotRunning) {
		t.Errorf("WhoIs: %v", err)
	}
	if _, err := n.ExplainPacket(node.PacketQuery{}); !errors.Is(err, node.ErrNotRunning) {
		t.Errorf("ExplainPacket: %v", err)
	}
	if _, ok := n.Peer("x"); ok || n.Peers() != nil || n.Capabilities(netip.Addr{}, netip.Addr{}) != nil {
		t.Error("somebody is known")
	}
	if _, ok := n.PeerFor(netip.MustParseAddr("100.64.0.1")); ok {
		t.Error("there is a route")
	}
}

// TestCapValues: values that do not fit the caller's type are an error that names
// capability, node and value; what is not granted is none.
func TestCapValues(t *testing.T) {
	who := &node.WhoIsResponse{
		Node:   node.PeerStatus{Name: "web.tailnet.test"},
		CapMap: netmap.CapMap{"a": {[]byte(`{"Name": "x"}`), []byte(`7`)}, "n": {[]byte(`1`), []byte(`2`)}, "none": nil},
	}
	if v, err := node.CapValues[int](who, "n"); err != nil || !slices.Equal(v, []int{1, 2}) {
		t.Errorf("numbers: %v, %v", v, err)
	}
	for _, name := range []string{"none", "absent"} {
		if v, err := node.CapValues[int](who, name); err != nil || v != nil {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	_, err := node.CapValues[role](who, "a")
	for _, want := range []string{"capability a", "web.tailnet.test", "value 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a malformed value: %v, want %q", err, want)
		}
	}
}

// TestIdentify: a handler learns who has opened the connection of a request; one
// that has left since is still known (SVC-120).
func TestIdentify(t *testing.T) {
	tailnet, server, member, _ := identityNodes(t)
	ln, err := server.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ConnContext: node.ConnContext, Handler: server.Identify(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := node.Identity(r.Context())
		io.WriteString(w, who.Node.HostName+" "+who.UserProfile.LoginName+" "+strings.Join(roles(t, who), ","))
	}))}
	go s.Serve(ln)
	defer s.Close()
	sees(t, member, "server")
	client := member.HTTPClient()
	defer client.CloseIdleConnections()
	get := func() string {
		resp, err := client.Get("http://server/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := get(); got != "member dev@tailnet.test reader,guest" {
		t.Errorf("got %q", got)
	}
	if err := tailnet.Rename("member", "renamed"); err != nil {
		t.Fatal(err)
	}
	if got := get(); got != "member dev@tailnet.test reader,guest" {
		t.Errorf("on the same connection, got %q", got)
	}
	if node.Identity(t.Context()) != nil {
		t.Error("a context without a request has an identity")
	}
}

// TestIdentifyRefusesStrangers: a request from no node of the tailnet does not
// reach the handler.
func TestIdentifyRefusesStrangers(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	n := newNode(t, tailnet, "server")
	up(t, n)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: n.Identify(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler is reached") }))}
	go s.Serve(ln)
	defer s.Close()
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestWhoIsConn: an accepted connection has an identity, also inside TLS, and
// still after its node has gone; a connection of another listener is looked up.
func TestWhoIsConn(t *testing.T) {
	_, server, member, _ := identityNodes(t)
	ln, err := server.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sees(t, member, "server")
	c, err := member.Dial(within(t, patience), "tcp", "server:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for name, c := range map[string]net.Conn{"accepted": accepted, "inside TLS": tls.Server(accepted, new(tls.Config))} {
		if who, err := server.WhoIsConn(c); err != nil || who.Node.HostName != "member" || !slices.Equal(roles(t, who), []string{"reader", "guest"}) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	if who, err := member.WhoIsConn(c); err != nil || who.Node.HostName != "server" {
		t.Errorf("dialed: %+v, %v", who, err)
	}
	if _, ok := accepted.(interface{ CloseWrite() error }); !ok {
		t.Errorf("%T cannot be half closed", accepted)
	}
}

// TestPeerLookup: nodes are found by name, address, key, ID and route (SVC-46).
func TestPeerLookup(t *testing.T) {
	_, server, member, _ := identityNodes(t)
	self := member.Status().Self
	ip4, ip6 := member.TailscaleIPs()
	for _, text := range []string{"member", "MEMBER", "member.tailnet.test", "member.tailnet.test.", ip4.String(), ip6.String(), "::ffff:" + ip4.String(), self.PublicKey.String(), string(self.ID)} {
		if p, ok := server.Peer(text); !ok || p.ID != self.ID {
			t.Errorf("%q: %+v, %v", text, p, ok)
		}
	}
	own := server.Status().Self
	for _, text := range []string{"server", string(own.ID), own.PublicKey.String()} {
		if p, ok := server.Peer(text); !ok || p.ID != own.ID {
			t.Errorf("%q: %+v, %v", text, p, ok)
		}
	}
	for _, text := range []string{"", "nobody", "100.64.99.99", "nodekey:x"} {
		if p, ok := server.Peer(text); ok {
			t.Errorf("%q: %+v", text, p)
		}
	}
	if p, ok := server.PeerFor(ip6); !ok || p.ID != self.ID {
		t.Errorf("route to %v: %+v, %v", ip6, p, ok)
	}
	if p, ok := server.PeerFor(netip.MustParseAddr("8.8.8.8")); ok {
		t.Errorf("route to the Internet: %+v", p)
	}
	names := []string{}
	for _, p := range server.Peers() {
		names = append(names, p.HostName)
	}
	if !slices.Equal(names, []string{"member", "robot"}) {
		t.Errorf("peers %v", names)
	}
}
