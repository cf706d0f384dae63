package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// runningNode runs a node of the tailnet until the test ends, and returns the path
// of its socket.
func runningNode(t *testing.T, tailnet *devnet.Net, name string) (socket string) {
	t.Helper()
	socket, _ = runNode(t, tailnet, name)
	return socket
}

func runNode(t *testing.T, tailnet *devnet.Net, name string) (socket string, n *node.Node) {
	t.Helper()
	n = &node.Node{
		Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Logger: newQuietLogger(t.Output()),
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	t.Cleanup(func() { n.Close() })
	if _, err := n.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := localServer(n, -1, nil, func(w io.Writer) error { return writeMetrics(w, n.Metrics()) }, n.Logger)
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), name+".sock")
	ln, err := localapi.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return socket, n
}

// What commands print that look at a running node, for people and as JSON.
func TestLookAtRunningNode(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	runningNode(t, tailnet, "web")
	socket := runningNode(t, tailnet, "me")
	t.Setenv("TS_SOCKET", socket)
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"status", []string{"100.64.0.2  me ", "this node", "100.64.0.1  web"}},
		{"ip", []string{"100.64.0.2\n", "fd7a:"}},
		{"ip -4", []string{"100.64.0.2\n"}},
		{"ip -1 web", []string{"100.64.0.1\n"}},
		{"whois 100.64.0.1", []string{"node:", "web.tailnet.test"}},
		{"metrics", []string{"# TYPE tailscaled_home_derp_region_id gauge", "tailscaled_home_derp_region_id 1\n", "tsnode_peers 1\n"}},
		{"version --daemon", []string{"node 1.102.5-tsnode-"}},
		{"debug derp-map", []string{`"RegionCode": "dev1"`}},
		{"debug netmap", []string{`"Name": "web.tailnet.test."`}},
		{"debug goroutines", []string{"goroutine "}},
		{"debug filter tcp web self:22", []string{"tcp 100.64.0.1 > 100.64.0.2:22, in from web.tailnet.test", "accept"}},
	} {
		out, err := output(t, strings.Fields(tt.line)...)
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: want %q", tt.line, want)
			}
		}
	}
	var s localapi.Status
	if out, err := output(t, "status", "--json"); err != nil || json.Unmarshal([]byte(out), &s) != nil || s.BackendState != "Running" || len(s.Peer) != 1 {
		t.Errorf("status --json: %v", err)
	}
	var addrs []string
	if out, err := output(t, "ip", "--json"); err != nil || json.Unmarshal([]byte(out), &addrs) != nil || len(addrs) != 2 {
		t.Errorf("ip --json: %v", err)
	}
	var who localapi.WhoIs
	if out, err := output(t, "whois", "--json", "100.64.0.1:99"); err != nil || json.Unmarshal([]byte(out), &who) != nil || who.Node.ID == 0 {
		t.Errorf("whois --json: %v", err)
	}
	for line, want := range map[string]error{"ip nobody": node.ErrNameNotFound} {
		if _, err := output(t, strings.Fields(line)...); !errors.Is(err, want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := output(t, "whois", "100.64.0.99"); err == nil || err.Error() != "who is 100.64.0.99: no node of the tailnet has this address or key" {
		t.Errorf("whois: %v", err)
	}
	for _, line := range []string{"whois 100.64.0.99", "whois web"} {
		if _, err := output(t, strings.Fields(line)...); err == nil {
			t.Errorf("%s: no error", line)
		}
	}
}

// Without a running node the error names the next step.
func TestNoRunningNode(t *testing.T) {
	t.Setenv("TS_SOCKET", filepath.Join(t.TempDir(), "none.sock"))
	for _, line := range []string{"status", "ip", "whois 100.64.0.1", "ping web", "nc web 80", "metrics", "set --shields-up", "login", "logout", "capture -o x", "debug derp-map", "debug filter tcp a b:1", "dns status"} {
		_, err := output(t, strings.Fields(line)...)
		if !errors.Is(err, localapi.ErrNoServer) || !strings.Contains(hintFor(err), "tsnode run --socket") {
			t.Errorf("%s: %v, hint %q", line, err, hintFor(err))
		}
	}
}

// tsnode set changes the node at once, and says what it does not understand.
func TestSet(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	socket, n := runNode(t, tailnet, "me")
	set := func(args ...string) (string, error) {
		return output(t, append([]string{"set", "--socket", socket}, args...)...)
	}
	out, err := set("--json", "--hostname", "other", "--shields-up", "--accept-routes", "--exit-node", "gone", "--force", "--accept-dns=false")
	if err != nil || !strings.Contains(out, `"Hostname": "other"`) {
		t.Errorf("set: %v", err)
	}
	p := n.Preferences()
	if p.Hostname != "other" || !p.ShieldsUp || !p.AcceptRoutes || p.ExitNode != "gone" || !p.IgnoreDNS {
		t.Errorf("%+v", p)
	}
	err = tailnet.Await(t.Context(), func(all []devnet.NodeInfo) bool { return len(all) == 1 && all[0].Name == "other" })
	if err != nil {
		t.Errorf("the tailnet does not know the name: %v", err)
	}
	if _, err := set("--exit-node="); err != nil || n.Preferences().ExitNode != "" {
		t.Errorf("no exit node: %v", err)
	}
	for _, choice := range []struct {
		flag string
		want string
	}{{"--accept-routes=10.0.0.0/8,web", "true [10.0.0.0/8 web]"}, {"--shields-up", "true [10.0.0.0/8 web]"}, {"--accept-routes", "true []"}, {"--accept-routes=web", "true [web]"}, {"--accept-routes=false", "false []"}} {
		_, err := set(choice.flag)
		if p := n.Preferences(); err != nil || fmt.Sprint(p.AcceptRoutes, " ", p.AcceptRoutesFrom) != choice.want {
			t.Errorf("%s: %v, %v %v, want %s", choice.flag, err, p.AcceptRoutes, p.AcceptRoutesFrom, choice.want)
		}
	}
	if _, err := set("--exit-node", "auto", "--force"); err != nil || n.Preferences().ExitNode != localapi.AutoExitNode {
		t.Errorf("any exit node: %v", err)
	}
	if _, err := set("--advertise-exit-node"); err == nil {
		t.Error("uses and is an exit node")
	}
	if _, err := set("--exit-node=", "--advertise-exit-node", "--advertise-routes", "10.0.0.0/8"); err != nil {
		t.Errorf("routes: %v", err)
	}
	if p := n.Preferences(); !p.AdvertiseExitNode || len(p.AdvertiseRoutes) != 1 {
		t.Errorf("routes: %+v", p)
	}
	if _, err := set("--advertise-routes="); err != nil || len(n.Preferences().AdvertiseRoutes) != 0 || !n.Preferences().AdvertiseExitNode {
		t.Errorf("no routes: %v, %+v", err, n.Preferences())
	}
	var usage *usageError
	for _, args := range [][]string{{}, {"--advertise-routes", "10.0.0.1"}, {"--shields-up=maybe"}, {"--accept-routes=a,,b"}} {
		if _, err := set(args...); !errors.As(err, &usage) || strings.Contains(err.Error(), "strconv") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// An exit node that is none would cut the node off the Internet: it is refused, and
// nothing changes, unless that is wanted.
func TestSetRefusesExitNodesThatAreNone(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{Policy: []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "autoApprovers": {"exitNode": ["*"]}}`)})
	runNode(t, tailnet, "web")
	socket, n := runNode(t, tailnet, "me")
	set := func(args ...string) error {
		_, err := output(t, append([]string{"set", "--socket", socket, "--shields-up"}, args...)...)
		return err
	}
	for name, want := range map[string]string{
		"nosuch": "name not found", "web": "does not offer to be an exit node", "100.64.0.1": "does not offer", "100.64.0.77": "no node of the tailnet has this address", "me": "this node itself", "auto": "no node of the tailnet offers",
	} {
		if err := set("--exit-node", name); !errors.Is(err, errNoExit) || !strings.Contains(err.Error(), want) || name != "me" && !strings.Contains(err.Error(), "--force") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if p := n.Preferences(); p.ExitNode != "" || p.ShieldsUp {
			t.Errorf("%s: in force is %+v", name, p)
		}
	}
	if err := set("--exit-node", "nosuch", "--force"); err != nil || n.Preferences().ExitNode != "nosuch" {
		t.Errorf("with --force: %v", err)
	}
	if err := set("--exit-node="); err != nil || n.Preferences().ExitNode != "" {
		t.Errorf("none: %v", err)
	}
}

// Which nodes can be the exit node of a running one.
func TestCheckExit(t *testing.T) {
	self := &localapi.PeerStatus{ID: "self", DNSName: "me.x."}
	exit := &localapi.PeerStatus{ID: "exit", DNSName: "gateway.x.", PublicKey: key.NewNode().Public(), ExitNodeOption: true, Online: true}
	s := &localapi.Status{BackendState: localapi.Running.String(), Self: self, Peer: map[key.NodePublic]*localapi.PeerStatus{exit.PublicKey: exit}}
	var said strings.Builder
	for _, name := range []string{"gateway", "gateway.x", "exit", exit.PublicKey.String(), "auto", "auto:any"} {
		if err := checkExit(s, name, &said); err != nil || said.Len() > 0 {
			t.Errorf("%s: %v, %s", name, err, &said)
		}
	}
	exit.Online = false
	if err := checkExit(s, "gateway", &said); err != nil || !strings.Contains(said.String(), "warning: --exit-node gateway: that node is offline") {
		t.Errorf("offline: %v, %s", err, &said)
	}
	s.BackendState = localapi.Starting.String()
	if err := checkExit(s, "gateway", &said); !errors.Is(err, errNoExit) || !strings.Contains(err.Error(), "not on its tailnet") {
		t.Errorf("not on the tailnet: %v", err)
	}
}

// tsnode logout, and login with a key: the node comes back as another one.
func TestLogoutAndLogin(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	socket := runningNode(t, tailnet, "me")
	if _, err := output(t, "logout", "--socket", socket); err != nil {
		t.Fatal(err)
	}
	if _, err := output(t, "status", "--socket", socket); err == nil || !strings.Contains(err.Error(), "tsnode login") {
		t.Errorf("status: %v", err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(tailnet.AuthKey(devnet.KeyOptions{})+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TS_AUTHKEY", "file:"+file) // as 'tsnode run' takes it
	if _, err := output(t, "login", "--socket", socket); err != nil {
		t.Fatal(err)
	}
	if _, err := output(t, "status", "--socket", socket); err != nil {
		t.Error(err)
	}
	t.Setenv("TS_AUTHKEY", "tskey-auth-wrong")
	if _, err := output(t, "login", "--socket", socket); err == nil {
		t.Error("a wrong key works")
	}
}

// tsnode nc joins standard input and output with a connection, and datagrams.
func TestNC(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	_, web := runNode(t, tailnet, "web")
	socket := runningNode(t, tailnet, "me")
	ln, err := web.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(c)
			c.Write(bytes.ToUpper(text))
			c.Close()
		}
	}()
	var out bytes.Buffer
	o := ncOptions{socketFlags: socketFlags{socket: socket}}
	if err := o.run(t.Context(), strings.NewReader("over the tailnet"), &out, "web:7"); err != nil || out.String() != "OVER THE TAILNET" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	ip4, _ := web.TailscaleIPs()
	packets, err := web.ListenPacket("udp", net.JoinHostPort(ip4.String(), "7"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}()
	o.udp, o.timeout = true, time.Millisecond
	in, feed := io.Pipe()
	answers, sink := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- o.run(t.Context(), in, sink, "web:7") }()
	feed.Write([]byte("a datagram"))
	got := make([]byte, 100)
	if n, err := answers.Read(got); err != nil || string(got[:n]) != "A DATAGRAM" {
		t.Errorf("UDP: got %q, %v", got[:n], err)
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := o.run(t.Context(), strings.NewReader(""), &out, "nobody:7"); err == nil {
		t.Error("nobody answers")
	}
}

// tsnode nc --udp ends when it is interrupted, though nobody types anything.
func TestNCUDPInterrupted(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	runningNode(t, tailnet, "web")
	o := ncOptions{socketFlags: socketFlags{socket: runningNode(t, tailnet, "me")}, udp: true, timeout: time.Second}
	in, typed := io.Pipe()
	defer typed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.run(ctx, in, io.Discard, "web:7") }()
	typed.Write([]byte("x")) // is taken once there is a connection
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tsnode capture writes a file that begins as pcapng does, and has what passes.
func TestCaptureCommand(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	runningNode(t, tailnet, "web")
	socket, n := runNode(t, tailnet, "me")
	file := filepath.Join(t.TempDir(), "x.pcapng")
	ctx, cancel := context.WithCancel(t.Context())
	o := captureOptions{socketFlags{socket: socket}, file}
	done := make(chan error, 1)
	go func() { done <- o.run(ctx, io.Discard) }()
	needle := []byte("in the tunnel")
	for {
		c, err := n.Dial(t.Context(), "udp", "web:9")
		if err != nil {
			t.Fatal(err)
		}
		c.Write(needle)
		c.Close()
		<-time.After(10 * time.Millisecond)
		if b, _ := os.ReadFile(file); bytes.HasPrefix(b, []byte{0x0a, 0x0d, 0x0d, 0x0a}) && bytes.Contains(b, needle) {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
