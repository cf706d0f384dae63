package interop

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
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
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// pingKinds are all kinds of pings, by the reference's names and ours.
var pingKinds = map[tailcfg.PingType]node.PingKind{
	tailcfg.PingDisco: node.PingDisco, tailcfg.PingTSMP: node.PingTSMP,
	tailcfg.PingICMP: node.PingICMP, tailcfg.PingPeerAPI: node.PingPeerAPI,
}

// mixedPair is a node of ours and one of the reference that know each other's
// peerAPI.
type mixedPair struct {
	ours   *node.Node
	theirs *tsnet.Server
}

// onBoth runs a test with a pair on our devnet, and with one on the reference's
// control server.
func onBoth(t *testing.T, test func(t *testing.T, p mixedPair)) {
	t.Run("devnet", func(t *testing.T) {
		t.Parallel()
		test(t, pairOnDevnet(t))
	})
	t.Run("reference control", func(t *testing.T) {
		t.Parallel()
		control, _ := referenceControl(t)
		test(t, acquaintPair(t, control, ""))
	})
}

func pairOnDevnet(t *testing.T) mixedPair {
	t.Helper()
	tailnet := startDevnet(t, devnet.Config{})
	return acquaintPair(t, tailnet.URL(), tailnet.AuthKey(devnet.KeyOptions{Reusable: true}))
}

func acquaintPair(t *testing.T, control, authKey string) mixedPair {
	t.Helper()
	p := mixedPair{ourNode(t, control, "ours", authKey), tsnetNode(t, control, "theirs", authKey)}
	eventually(t, upTimeout, func(context.Context) error {
		if at, known := p.peerAPIOfOurs(t), p.knowsTheirs(t); at == "" || !known {
			return fmt.Errorf("the reference has our peerAPI at %q; we know theirs: %v", at, known)
		}
		return nil
	})
	return p
}

// peerAPIOfOurs returns the URL of our peerAPI as the reference's status has it
// (SVC-84, SVC-85); empty while it has none.
func (p mixedPair) peerAPIOfOurs(t *testing.T) string {
	t.Helper()
	if peer := p.oursByReference(t); peer != nil && len(peer.PeerAPIURL) > 0 {
		return peer.PeerAPIURL[0]
	}
	return ""
}

func (p mixedPair) oursByReference(t *testing.T) *ipnstate.PeerStatus {
	t.Helper()
	lc, err := p.theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	st, err := lc.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own, _ := p.ours.TailscaleIPs()
	for _, peer := range st.Peer {
		if slices.Contains(peer.TailscaleIPs, own) {
			return peer
		}
	}
	return nil
}

func (p mixedPair) knowsTheirs(t *testing.T) bool {
	t.Helper()
	ip4, _ := p.theirs.TailscaleIPs()
	ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
	defer cancel()
	_, err := p.ours.Ping(ctx, ip4.String(), node.PingPeerAPI)
	return err == nil
}

// The reference pings our node, and our node the reference: every kind of ping is
// answered, over both families (SVC-35, SVC-85, SVC-90).
func TestPingsOfAllKindsBothWays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, p mixedPair) {
		lc, err := p.theirs.LocalClient()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
		defer cancel()
		url := p.peerAPIOfOurs(t)
		for theirKind, ourKind := range pingKinds {
			for _, to := range addrsOf(p.ours) {
				got, err := lc.Ping(ctx, to, theirKind)
				switch {
				case err != nil:
					t.Errorf("%s of ours at %v: %v", theirKind, to, err)
				case got.Err != "" || got.LatencySeconds <= 0:
					t.Errorf("%s of ours at %v: %+v", theirKind, to, got)
				case theirKind == tailcfg.PingTSMP && !strings.HasSuffix(url, fmt.Sprintf(":%d", got.PeerAPIPort)):
					t.Errorf("%s of ours: peerAPI at %d, and in the netmap at %s", theirKind, got.PeerAPIPort, url)
				}
			}
			for _, to := range addrsOf(p.theirs) {
				if got, err := p.ours.Ping(ctx, to.String(), ourKind); err != nil || got.Latency <= 0 {
					t.Errorf("%s of theirs at %v: %+v, %v", ourKind, to, got, err)
				}
			}
		}
	})
}

// fetch asks a peerAPI by a node's own connections.
func fetch(t *testing.T, by dialer, req *http.Request) (status int, header http.Header, body []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: by.Dial}
	resp, err := tr.RoundTrip(req.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

func newRequest(t *testing.T, method, url string, body []byte) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// An api is a peerAPI, and whose connections ask it.
type api struct {
	url string
	by  dialer
}

// peerAPIs returns both of a pair.
func (p mixedPair) peerAPIs(t *testing.T) map[string]api {
	t.Helper()
	ip4, _ := p.theirs.TailscaleIPs()
	ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
	defer cancel()
	pong, err := p.ours.Ping(ctx, ip4.String(), node.PingPeerAPI)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]api{
		"ours":   {p.peerAPIOfOurs(t), p.theirs},
		"theirs": {"http://" + netip.AddrPortFrom(ip4, pong.PeerAPIPort).String(), p.ours},
	}
}

// TestPeerAPIDifferential sends the same requests to the reference's peerAPI and
// ours: the status codes that SVC-86 to SVC-90 speak of are the same.
func TestPeerAPIDifferential(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, p mixedPair) {
		apis := p.peerAPIs(t)
		for _, tt := range []struct {
			name, method, path string
			change             func(*http.Request)
			hardened           bool
		}{
			{"greeting", "GET", "/", nil, false},
			{"ping", "HEAD", "/", nil, false},
			{"host peer", "GET", "/", func(r *http.Request) { r.Host = "peer" }, false},
			{"another host", "GET", "/", func(r *http.Request) { r.Host = "evil.example" }, false},
			{"a host with a port", "GET", "/", func(r *http.Request) { r.Host = "evil.example:80" }, false},
			{"another address", "GET", "/", func(r *http.Request) { r.Host = "100.99.99.99:80" }, false},
			{"Origin", "GET", "/", func(r *http.Request) { r.Header.Set("Origin", "http://x") }, false},
			{"Referer", "GET", "/", func(r *http.Request) { r.Header.Set("Referer", "http://x") }, false},
			{"a browser", "GET", "/", func(r *http.Request) { r.Header.Set("Accept-Language", "en") }, true},
			{"a browser's agent", "GET", "/", func(r *http.Request) { r.Header.Set("User-Agent", "Mozilla/5.0") }, true},
			{"a browser's coding", "GET", "/", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip, deflate") }, true},
			{"no such path", "GET", "/nothing", nil, false},
			{"DNS without a question", "GET", "/dns-query", nil, false},
			{"DNS that is no base64", "GET", "/dns-query?dns=!", nil, false},
		} {
			type outcome struct {
				status   int
				hardened bool
			}
			got := make(map[string]outcome)
			for name, api := range apis {
				req := newRequest(t, tt.method, api.url+tt.path, nil)
				if tt.change != nil {
					tt.change(req)
				}
				status, header, _ := fetch(t, api.by, req)
				got[name] = outcome{status, header.Get("X-Frame-Options") != ""}
			}
			if got["ours"] != got["theirs"] || got["ours"].hardened != tt.hardened {
				t.Errorf("%s: %+v, want headers for a browser: %v", tt.name, got, tt.hardened)
			}
		}
	})
}

// SVC-78, SVC-88: a DNS question over peerAPI, as the reference's client sends it
// to its exit node, comes back with its ID, question and an answer; people get
// JSON. Both nodes are of one user; those of the reference's control server are not,
// and TestPeerAPIDifferential shows that both refuse each other.
func TestDNSOverPeerAPI(t *testing.T) {
	t.Parallel()
	p := pairOnDevnet(t)
	name := dnsmessage.MustNewName("localhost.")
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	url := p.peerAPIOfOurs(t) + "/dns-query"
	post := newRequest(t, "POST", url, raw)
	post.Header.Set("Content-Type", "application/dns-message")
	for _, req := range []*http.Request{post, newRequest(t, "GET", url+"?dns="+base64.RawURLEncoding.EncodeToString(raw), nil)} {
		status, header, body := fetch(t, p.theirs, req)
		var m dnsmessage.Message
		if err := m.Unpack(body); status != http.StatusOK || err != nil || header.Get("Content-Type") != "application/dns-message" {
			t.Fatalf("%s: %d %q, %v", req.Method, status, body, err)
		}
		if m.ID != 4711 || !m.Response || len(m.Questions) != 1 || m.Questions[0].Name != name || len(m.Answers) == 0 {
			t.Errorf("%s: %+v", req.Method, m)
		}
	}
	status, _, body := fetch(t, p.theirs, newRequest(t, "GET", url+"?q=localhost", nil))
	var addrs []string
	if err := json.Unmarshal(body, &addrs); status != http.StatusOK || err != nil || !slices.Contains(addrs, "127.0.0.1") {
		t.Errorf("%d %q, %v", status, body, err)
	}
}

// A raw socket of ours pings the reference's node.
func TestRawSocketPingsReference(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, p mixedPair) {
		pc, err := p.ours.ListenPacket("ip6:ipv6-icmp", "")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		pc.SetDeadline(time.Now().Add(upTimeout))
		_, ip6 := p.theirs.TailscaleIPs()
		request := append([]byte{128, 0, 0, 0, 0, 9, 0, 1}, "raw"...) // RFC 4443 section 4.1; the socket makes the checksum
		if _, err := pc.WriteTo(request, &net.IPAddr{IP: ip6.AsSlice()}); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, from, err := pc.ReadFrom(b)
		if err != nil || from.String() != ip6.String() || b[0] != 129 || string(b[4:n]) != string(request[4:]) {
			t.Errorf("%x from %v, %v", b[:n], from, err)
		}
	})
}
