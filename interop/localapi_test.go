package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/ipn/ipnstate"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

const (
	cliTimeout = 60 * time.Second // of one command: netcheck waits for what does not answer
	cliVersion = "1.102.5-tsnode-test"
)

// theirCLI is the reference's command, as go.mod has it.
var theirCLI = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "tailscale.com/cmd/tailscale").Output()
	return strings.TrimSpace(string(out)), err
})

// A cli runs the reference's command against the socket of a node of ours.
type cli struct {
	t      *testing.T
	path   string
	socket string
}

// serveSocket serves the socket of a node until the test ends.
func serveSocket(t *testing.T, n *node.Node) (socket string) {
	t.Helper()
	api, err := n.LocalAPI()
	if err != nil {
		t.Fatal(err)
	}
	s := localapi.New(localapi.Config{
		Node: api, Version: cliVersion, Capability: node.CapabilityVersion, Operator: -1, Logger: testLog(t, "socket"),
		Metrics: func(w io.Writer) error {
			_, err := io.WriteString(w, "# TYPE tailscaled_home_derp_region_id gauge\ntailscaled_home_derp_region_id 1\n")
			return err
		},
	})
	socket = filepath.Join(t.TempDir(), "s.sock")
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
	return socket
}

// newCLI returns the reference's command for a node.
func newCLI(t *testing.T, n *node.Node) *cli {
	t.Helper()
	path, err := theirCLI()
	if err != nil {
		t.Fatal(err)
	}
	return &cli{t, path, serveSocket(t, n)}
}

func (c *cli) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, append([]string{"--socket", c.socket}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.t.TempDir(), "TS_DEBUG_FAKE_IPC_VERSION="+cliVersion)
	return cmd
}

// run runs the command with a line of words, and returns all that it prints.
func (c *cli) run(stdin, line string) (out string, err error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cliTimeout)
	defer cancel()
	cmd := c.command(ctx, strings.Fields(line)...)
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	c.t.Logf("tailscale %s: %v\n%s", line, err, b)
	return string(b), err
}

// want runs the command and looks for patterns in what it prints.
func (c *cli) want(line string, patterns ...string) {
	c.t.Helper()
	out, err := c.run("", line)
	if err != nil {
		c.t.Errorf("tailscale %s: %v", line, err)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(out) {
			c.t.Errorf("tailscale %s: no match of %q", line, p)
		}
	}
}

// cliPair returns the command for a node of ours, and a peer of it.
func cliPair(t *testing.T) (c *cli, me, web *node.Node, tailnet *devnet.Net) {
	tailnet = startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	web, me = ourNode(t, tailnet.URL(), "web", k), ourNode(t, tailnet.URL(), "me", k)
	return newCLI(t, me), me, web, tailnet
}

// Acceptance item 4: the reference's command shows our node and its tailnet.
func TestRealCLILooks(t *testing.T) {
	c, me, web, _ := cliPair(t)
	mine, mine6 := me.TailscaleIPs()
	theirs, _ := web.TailscaleIPs()
	c.want("status", fmt.Sprintf(`(?m)^%v\s+me\s+\S+\s+linux`, mine), fmt.Sprintf(`(?m)^%v\s+web\s+`, theirs))
	c.want("ip", mine.String(), mine6.String())
	c.want("ip -4", `^`+mine.String()+`\n$`)
	c.want("ip web", theirs.String())
	c.want("whois "+theirs.String(), `Name:\s+web\.tailnet\.test`, `ID:\s+\S+`)
	c.want("whois --json "+theirs.String()+":80", `"Name":\s*"web\.tailnet\.test\."`)
	c.want("version --daemon", `Daemon: `+cliVersion)
	c.want("metrics", `tailscaled_home_derp_region_id 1`)
	c.want("netcheck", `Report:`, `UDP: true`, `dev1: [0-9.]+`)
	c.want("serve status", `No serve config`)
	c.want("serve status --json", `\{\}`)
	c.want("dns status", `=== MagicDNS configuration ===`, `tailnet\.test`)
	c.want("dns query web.tailnet.test", theirs.String())
	c.want("whoami", `me\.tailnet\.test`)
	c.want("debug derp-map", `"RegionCode": "dev1"`)
	c.want("debug netmap", `"Name": "web\.tailnet\.test\."`, `"PacketFilterRules"`)
	c.want("debug metrics", `tailscaled_home_derp_region_id`)
	c.want("debug prefs", `"WantRunning": true`)
	c.want("debug daemon-goroutines", `goroutine \d+`)
	c.want("debug watch-ipn --count=1 --initial", `"State": 6`)
	if out, err := c.run("", "whois 100.64.0.99"); err == nil {
		t.Errorf("whois of nobody: %s", out)
	}
	if out, _ := c.run("", "serve 3000"); !strings.Contains(out, "not supported by tsnode") {
		t.Errorf("serve: %s", out)
	}
}

// SVC-128: the reference understands every field of our status.
func TestRealCLIStatusJSON(t *testing.T) {
	c, me, web, _ := cliPair(t)
	if _, err := me.Ping(t.Context(), "web", node.PingICMP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), cliTimeout)
	defer cancel()
	out, err := c.command(ctx, "status", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var s ipnstate.Status
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	if s.BackendState != "Running" || s.TUN || !s.HaveNodeKey || s.CurrentTailnet == nil || s.CurrentTailnet.MagicDNSSuffix != "tailnet.test" || s.Self.HostName != "me" || len(s.Peer) != 1 {
		t.Errorf("%s", out)
	}
	for k, p := range s.Peer {
		if k.String() != web.Status().Self.PublicKey.String() || !p.Active || !p.Online || p.TxBytes == 0 || p.HostName != "web" || p.Created.IsZero() {
			t.Errorf("%+v", p)
		}
	}
}

// SVC-131: all kinds of pings.
func TestRealCLIPings(t *testing.T) {
	c, _, web, _ := cliPair(t)
	ip, _ := web.TailscaleIPs()
	c.want("ping web", `pong from web\S* \(`+ip.String()+`\) via [0-9.]+:\d+ in`)
	c.want("ping --tsmp web", `pong from web\S* \(`+ip.String()+`, \d+\) via TSMP in`)
	c.want("ping --icmp web", `pong from web\S* \(`+ip.String()+`\) via ICMP in`)
	c.want("ping --peerapi web", `hit peerapi of `+ip.String()+` \(web\S*\) at http://`+ip.String()+`:\d+ in`)
	c.want("ping me", `is local Tailscale IP`)
}

// nc joins standard input and output with a connection, as ssh's ProxyCommand
// wants it.
func TestRealCLINetcat(t *testing.T) {
	c, _, web, _ := cliPair(t)
	ln, err := web.Listen("tcp", ":22")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			line := make([]byte, 5)
			io.ReadFull(conn, line)
			fmt.Fprintf(conn, "SSH-2.0 got %s", line)
			conn.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), cliTimeout)
	defer cancel()
	cmd := c.command(ctx, "nc", "web", "22")
	in, err := cmd.StdinPipe() // it ends when the input does: as with ssh, it does not
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	io.WriteString(in, "hello")
	out, err := cmd.Output()
	if err != nil || string(out) != "SSH-2.0 got hello" {
		t.Errorf("got %q, %v", out, err)
	}
	c.t.Logf("%s", out)
	if out, err := c.run("", "nc web 23"); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("a port where nobody listens: %v %s", err, out)
	}
}

// debug capture writes what Wireshark reads, with what passes.
func TestRealCLICapture(t *testing.T) {
	c, me, _, _ := cliPair(t)
	file := filepath.Join(t.TempDir(), "x.pcapng")
	ctx, cancel := context.WithTimeout(context.Background(), cliTimeout)
	defer cancel()
	cmd := c.command(ctx, "debug", "capture", "-o", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	needle := []byte("seen by a capture")
	for {
		conn, err := me.Dial(ctx, "udp", "web:9")
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(needle)
		conn.Close()
		if b, _ := os.ReadFile(file); bytes.HasPrefix(b, []byte("\x0a\x0d\x0d\x0a")) && bytes.Contains(b, needle) {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nothing is captured")
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
}

// set changes preferences of our node.
func TestRealCLISet(t *testing.T) {
	c, me, web, tailnet := cliPair(t)
	offers := func(p *node.Preferences) { p.AdvertiseExitNode = true }
	if err := web.EditPreferences(offers); err != nil {
		t.Fatal(err)
	}
	c.want("set --shields-up --hostname=renamed --accept-routes --accept-dns=false")
	p := me.Preferences()
	if !p.ShieldsUp || p.Hostname != "renamed" || !p.AcceptRoutes || !p.IgnoreDNS {
		t.Errorf("%+v", p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	approved := func(all []devnet.NodeInfo) bool {
		for _, n := range all {
			if n.Name == "web" && len(n.Offers) == 2 {
				return true
			}
		}
		return false
	}
	if err := tailnet.Await(ctx, approved); err != nil {
		t.Fatal(err)
	}
	if err := tailnet.ApproveRoutes("web", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")); err != nil {
		t.Fatal(err)
	}
	awaitExitOption(ctx, t, me)
	c.want("set --exit-node=web")
	if s := me.Status(); s.ExitNode != "web.tailnet.test" {
		t.Errorf("exit node %q", s.ExitNode)
	}
	c.want("status", `web\s+.*exit node`)
	c.want("exit-node list", `web\.tailnet\.test`)
	c.want("set --exit-node= --shields-up=false")
	if p := me.Preferences(); p.ExitNode != "" || p.ShieldsUp || !p.AcceptRoutes {
		t.Errorf("%+v", p)
	}
	if out, err := c.run("", "set --ssh --accept-risk=all"); err == nil || !strings.Contains(out, "RunSSH") {
		t.Errorf("set --ssh: %v %s", err, out)
	}
	if out, err := c.run("", "down"); err == nil || !strings.Contains(out, "WantRunning") {
		t.Errorf("down: %v %s", err, out)
	}
}

// awaitExitOption waits until a node knows that its peer may be its exit node.
func awaitExitOption(ctx context.Context, t *testing.T, n *node.Node) {
	t.Helper()
	api, err := n.LocalAPI()
	if err != nil {
		t.Fatal(err)
	}
	for {
		changes := api.Changes()
		if nm := api.Snapshot().Netmap; len(nm.Peers) == 1 && len(nm.Peers[0].AllowedIPs) > 2 {
			return
		}
		select {
		case <-changes.Netmap:
		case <-ctx.Done():
			t.Fatal("the peer does not become an exit node")
		}
	}
}

// logout, login and up with an auth key: our node comes back as another one.
func TestRealCLILogin(t *testing.T) {
	c, me, _, tailnet := cliPair(t)
	before := me.Status().Self.PublicKey
	server := " --login-server=" + tailnet.URL()
	c.want("up --hostname=me" + server)
	if got := me.Preferences().Hostname; got != "me" {
		t.Errorf("up: hostname %q", got)
	}
	c.want("logout")
	if out, err := c.run("", "status"); err == nil || !strings.Contains(out, "Logged out") {
		t.Errorf("status: %v %s", err, out)
	}
	c.want("login --timeout=50s --auth-key=" + tailnet.AuthKey(devnet.KeyOptions{}) + server + " --hostname=me")
	c.want("status", `(?m)me\s`)
	first := me.Status().Self.PublicKey
	if first == before {
		t.Error("the key is the same")
	}
	c.want("logout")
	withKey := "up --timeout=50s --auth-key=" + tailnet.AuthKey(devnet.KeyOptions{}) + server + " --hostname=me"
	c.want(withKey)
	second := me.Status().Self.PublicKey
	if second == first {
		t.Error("the key is the same")
	}
	c.want(withKey) // as at each start of a machine; the key was for once
	if now := me.Status().Self.PublicKey; now != second {
		t.Error("up makes another node of one that is logged in")
	}
	if out, err := c.run("", "up --timeout=50s --force-reauth --auth-key=tskey-auth-wrong --accept-risk=all --hostname=me"+server); err == nil {
		t.Errorf("a wrong key: %s", out)
	}
}
