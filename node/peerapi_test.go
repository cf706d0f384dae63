package node_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// closedPolicy lets nobody in but to one port.
const closedPolicy = `{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["tcp:7"]}]}`

// peerAPIPair returns two nodes that know each other's peerAPI.
func peerAPIPair(t *testing.T, c devnet.Config) (tailnet *devnet.Net, a, b *node.Node) {
	t.Helper()
	tailnet = startDevnet(t, c)
	a, b = newNode(t, tailnet, "alpha"), newNode(t, tailnet, "beta")
	up(t, a)
	up(t, b)
	sees(t, a, "beta")
	sees(t, b, "alpha")
	peerAPIPort(t, a, "beta")
	peerAPIPort(t, b, "alpha")
	return tailnet, a, b
}

// peerAPIPort waits until a node knows a peer's peerAPI, and returns its port.
func peerAPIPort(t testing.TB, n *node.Node, peer string) uint16 {
	t.Helper()
	ctx := within(t, patience)
	for {
		pong, err := n.Ping(ctx, peer, node.PingPeerAPI)
		if err == nil {
			return pong.PeerAPIPort
		}
		if !errors.Is(err, node.ErrNoPeerAPI) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not learn of the peerAPI of %s", n.Hostname, peer)
		case <-time.After(5 * time.Millisecond): // until the netmap has it
		}
	}
}

// All kinds of pings are answered, over both families, also by a node that lets
// peers in to another port only (SVC-30, SVC-35, SVC-84, SVC-85, SVC-90).
func TestPingOfAllKinds(t *testing.T) {
	for name, policy := range map[string]string{"all ports": "", "one port": closedPolicy} {
		t.Run(name, func(t *testing.T) {
			_, a, b := peerAPIPair(t, devnet.Config{Policy: []byte(policy)})
			port := peerAPIPort(t, a, "beta")
			ip4, ip6 := b.TailscaleIPs()
			for _, to := range []netip.Addr{ip4, ip6} {
				for _, kind := range []node.PingKind{node.PingDisco, node.PingTSMP, node.PingICMP, node.PingPeerAPI} {
					pong, err := a.Ping(within(t, patience), to.String(), kind)
					switch {
					case err != nil:
						t.Errorf("%s of %v: %v", kind, to, err)
					case pong.Kind != kind || pong.IP != to || pong.Name != "beta.tailnet.test" || pong.Latency <= 0 || pong.Path == "":
						t.Errorf("%s of %v: %+v", kind, to, pong)
					case (kind == node.PingTSMP || kind == node.PingPeerAPI) && pong.PeerAPIPort != port:
						t.Errorf("%s of %v: peerAPI at %d, want %d", kind, to, pong.PeerAPIPort, port)
					}
				}
			}
		})
	}
}

// The control server has its pings of peers answered, too (CTL-60).
func TestControlPingsPeerAPI(t *testing.T) {
	tailnet, a, b := peerAPIPair(t, devnet.Config{})
	ip4, _ := b.TailscaleIPs()
	got, err := tailnet.PingPeer(within(t, patience), "alpha", ip4, string(node.PingPeerAPI))
	if err != nil || got.Err != "" || got.PeerAPIPort != peerAPIPort(t, a, "beta") {
		t.Errorf("%+v, %v", got, err)
	}
}

// get asks a peer's peerAPI.
func get(t testing.TB, n *node.Node, at netip.AddrPort, path string, header ...string) (status int, body string) {
	t.Helper()
	client := n.HTTPClient()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(within(t, patience), http.MethodGet, "http://"+at.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// SVC-84, SVC-86: the greeting over both families names who asks, as the netmap
// knows it.
func TestSVC86PeerAPIKnowsWhoAsks(t *testing.T) {
	_, a, b := peerAPIPair(t, devnet.Config{})
	port := peerAPIPort(t, a, "beta")
	own4, own6 := a.TailscaleIPs()
	ip4, ip6 := b.TailscaleIPs()
	before := b.PeerAPIStatus()
	if want := []netip.AddrPort{netip.AddrPortFrom(ip4, port), netip.AddrPortFrom(ip6, port)}; !slices.Equal(before.Addrs, want) {
		t.Errorf("the node says it is at %v, want %v", before.Addrs, want)
	}
	for to, from := range map[netip.Addr]netip.Addr{ip4: own4, ip6: own6} {
		status, body := get(t, a, netip.AddrPortFrom(to, port), "/")
		if want := fmt.Sprintf(" at %v (alpha.tailnet.test).\nThis is beta.tailnet.test.\nYou own it.\n", from); status != http.StatusOK || !strings.HasSuffix(body, want) {
			t.Errorf("%d %q, want %q", status, body, want)
		}
	}
	if status, body := get(t, a, netip.AddrPortFrom(ip4, port), "/", "Origin", "http://evil.example"); status != http.StatusForbidden {
		t.Errorf("%d %q", status, body)
	}
	if status, body := get(t, b, netip.AddrPortFrom(ip4, port), "/"); status != http.StatusOK || !strings.Contains(body, "You own it.") {
		t.Errorf("a node asks itself: %d %q", status, body)
	}
	after := b.PeerAPIStatus().Counters
	if after.Requests-before.Counters.Requests != 4 || after.Forbidden-before.Counters.Forbidden != 1 || after.Strangers != 0 {
		t.Errorf("counters after 4 requests: %+v, before %+v", after, before.Counters)
	}
	if got := new(node.Node).PeerAPIStatus(); len(got.Addrs) != 0 {
		t.Errorf("a node that was not started: %+v", got)
	}
}

// withEve is peerAPIPair with a node of another user.
func withEve(t *testing.T, policy string) (tailnet *devnet.Net, a, b, eve *node.Node) {
	t.Helper()
	tailnet, a, b = peerAPIPair(t, devnet.Config{Policy: []byte(policy)})
	eve = makeNode(t, tailnet, "eve")
	eve.AuthKey = tailnet.AuthKey(devnet.KeyOptions{User: "eve@tailnet.test"})
	t.Cleanup(func() { eve.Close() })
	up(t, eve)
	sees(t, eve, "beta")
	sees(t, b, "eve")
	return tailnet, a, b, eve
}

// askDNS asks a node over peerAPI for a name of the tailnet, and returns the
// status and the DNS answer's code.
func askDNS(t *testing.T, by, of *node.Node) (status int, code dnsmessage.RCode) {
	t.Helper()
	ip4, _ := of.TailscaleIPs()
	at := netip.AddrPortFrom(ip4, peerAPIPort(t, by, of.Hostname))
	status, body := get(t, by, at, "/dns-query?dns="+base64.RawURLEncoding.EncodeToString(question(t, "alpha.tailnet.test.")))
	if status != http.StatusOK {
		return status, 0
	}
	var m dnsmessage.Message
	if err := m.Unpack([]byte(body)); err != nil || m.ID != 7 {
		t.Errorf("answer %+v, %v", m, err)
	}
	return status, m.RCode
}

// SVC-88: nodes of one user may ask each other for DNS, and others may not; nobody
// gets names of the tailnet.
func TestSVC88DNSOfTheSameUser(t *testing.T) {
	_, a, b, eve := withEve(t, "")
	if status, _ := askDNS(t, eve, b); status != http.StatusForbidden {
		t.Errorf("another user: %d", status)
	}
	if status, code := askDNS(t, a, b); status != http.StatusOK || code != dnsmessage.RCodeRefused {
		t.Errorf("the same user: %d, %v", status, code)
	}
}

// SVC-88: an exit node answers those who may use it.
func TestSVC88DNSOfAnExitNode(t *testing.T) {
	const onlyTailnet = `{"grants": [{"src": ["*"], "dst": ["100.64.0.0/10"], "ip": ["*"]}]}`
	for policy, want := range map[string]int{"": http.StatusOK, onlyTailnet: http.StatusForbidden} {
		tailnet, _, b, eve := withEve(t, policy)
		approve(t, tailnet, "beta", internetRoutes...)
		if err := b.EditPreferences(func(p *node.Preferences) { p.AdvertiseExitNode = true }); err != nil {
			t.Fatal(err)
		}
		if want == http.StatusOK {
			eventually(t, "an answer", func() bool { status, _ := askDNS(t, eve, b); return status == want })
		}
		if status, _ := askDNS(t, eve, b); status != want {
			t.Errorf("policy %q: %d, want %d", policy, status, want)
		}
		if err := b.EditPreferences(func(p *node.Preferences) { p.AdvertiseExitNode = false }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a refusal", func() bool { status, _ := askDNS(t, eve, b); return status == http.StatusForbidden })
	}
}

// Close ends the service, and connections to it.
func TestPeerAPIEndsWithTheNode(t *testing.T) {
	_, a, b := peerAPIPair(t, devnet.Config{})
	ip4, _ := b.TailscaleIPs()
	at := netip.AddrPortFrom(ip4, peerAPIPort(t, a, "beta"))
	c, err := b.Dial(within(t, patience), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes", n)
	}
	if _, err := b.Ping(t.Context(), "alpha", node.PingPeerAPI); !errors.Is(err, node.ErrClosed) {
		t.Errorf("%v, want %v", err, node.ErrClosed)
	}
}

// A port that the program has already is not taken: the service finds another.
func TestSVC83PeerAPIYieldsItsPort(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	a, b := newNode(t, tailnet, "alpha"), newNode(t, tailnet, "beta")
	const taken = 58436 // that of 100.64.0.1, the address of who comes first
	ln, err := b.Listen("tcp", fmt.Sprintf(":%d", taken))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	up(t, b)
	up(t, a)
	sees(t, a, "beta")
	sees(t, b, "alpha")
	if ip4, _ := b.TailscaleIPs(); ip4.String() != "100.64.0.1" {
		t.Fatalf("the address is %v", ip4)
	}
	if port := peerAPIPort(t, a, "beta"); port == taken {
		t.Error("peerAPI is at the program's port")
	}
	if port := peerAPIPort(t, b, "alpha"); port != 46590 { // CRC-32 of 64 0 2
		t.Errorf("the peerAPI of 100.64.0.2 is at %d", port)
	}
}

// A program that pings by itself, and one that answers by itself, over raw
// sockets (SVC-37 has no others).
func TestRawSocketsForICMP(t *testing.T) {
	_, a, b := peerAPIPair(t, devnet.Config{})
	ip4, ip6 := b.TailscaleIPs()
	own4, _ := a.TailscaleIPs()
	for _, tt := range []struct {
		network, addr  string
		to             netip.Addr
		request, reply byte
	}{
		{"ip4:icmp", "", ip4, 8, 0},
		{"ip4:1", own4.String(), ip4, 8, 0},
		{"ip6:ipv6-icmp", "::", ip6, 128, 129},
	} {
		pc, err := a.ListenPacket(tt.network, tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		pc.SetDeadline(time.Now().Add(patience))
		request := echoMessage(tt.request)
		if _, err := pc.WriteTo(request, &net.IPAddr{IP: tt.to.AsSlice()}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, from, err := pc.ReadFrom(buf)
		if err != nil || from.String() != tt.to.String() || buf[0] != tt.reply || !bytes.Equal(buf[4:n], request[4:]) {
			t.Errorf("%s: %x from %v, %v", tt.network, buf[:n], from, err)
		}
	}
	for _, tt := range []struct{ network, addr string }{
		{"ip4:99", ""}, {"ip4:tcp", ""}, {"ip6:icmp", ""}, {"ip", ""}, {"ip:icmp", ""}, {"ip4:icmp", ip4.String()}, {"ip4:icmp", "::"}, {"ip4:icmp", "beta"},
	} {
		if pc, err := a.ListenPacket(tt.network, tt.addr); err == nil {
			pc.Close()
			t.Errorf("%s %q: no error", tt.network, tt.addr)
		}
	}
}

// echoMessage returns an ICMP message with identifier 7, sequence 1 and a
// checksum for IPv4 (RFC 792, RFC 1071).
func echoMessage(kind byte) []byte {
	b := append([]byte{kind, 0, 0, 0, 0, 7, 0, 1}, "over the tailnet"...)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	b[2], b[3] = byte(sum>>8), byte(sum)
	return b
}
