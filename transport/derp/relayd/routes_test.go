package relayd

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport/stun"
)

// Every endpoint of derp.md section 10.1 (DERP-95, DERP-103, DERP-173).
func TestEndpoints(t *testing.T) {
	c := testConfig(t)
	c.BootstrapDNS = nil
	r := run(t, c)
	plain := "http://" + r.addrs.HTTP.String()
	for _, tt := range []struct {
		method, url string
		header      http.Header
		status      int
		body        string            // part of it; empty = no body
		want        map[string]string // headers
		safe        bool              // carries the headers for browsers
	}{
		{method: "GET", url: r.main("/derp"), status: 426, body: "DERP requires connection upgrade"},
		{method: "GET", url: r.main("/derp"), header: http.Header{"Upgrade": {"h2c"}, "Connection": {"Upgrade"}}, status: 426, body: "DERP requires"},
		{method: "GET", url: r.main("/derp/probe"), status: 200, want: map[string]string{"Access-Control-Allow-Origin": "*"}},
		{method: "HEAD", url: r.main("/derp/probe"), status: 200, want: map[string]string{"Access-Control-Allow-Origin": "*"}},
		{method: "GET", url: r.main("/derp/latency-check"), status: 200, want: map[string]string{"Access-Control-Allow-Origin": "*"}},
		{method: "POST", url: r.main("/derp/probe"), status: 405, body: "ethod"},
		{method: "GET", url: r.main("/generate_204"), status: 204, want: map[string]string{"X-Tailscale-Response": ""}},
		{method: "GET", url: r.main("/bootstrap-dns"), status: 200, body: "{", safe: true},
		{method: "GET", url: r.main("/robots.txt"), status: 200, body: "Disallow: /", safe: true},
		{method: "GET", url: r.main("/"), status: 200, body: "DERP relay", safe: true},
		{method: "GET", url: r.main("/anything/else"), status: 200, body: "DERP relay", safe: true},
		{method: "GET", url: r.main("/debug/"), status: 404, body: "404", safe: true},
		{method: "GET", url: r.main("/debug/pprof/"), status: 404, body: "404", safe: true},
		{method: "GET", url: r.main("/metrics"), status: 200, body: "DERP relay", safe: true}, // an unknown path
		{method: "GET", url: plain + "/generate_204", status: 204},
		{method: "GET", url: plain + "/.well-known/acme-challenge/x", status: 302, body: "Found"},
		{method: "GET", url: plain + "/a?b=c", status: 302, body: "Found", want: map[string]string{"Location": r.main("/a?b=c")}},
		{method: "HEAD", url: plain + "/", status: 302, want: map[string]string{"Location": r.main("/")}},
		{method: "POST", url: plain + "/", status: 400, body: "Use HTTPS"},
		{method: "GET", url: plain + "/derp", status: 302, body: "Found"},
		{method: "GET", url: plain + "/debug/", status: 302, body: "Found"},
	} {
		t.Run(tt.method+" "+tt.url, func(t *testing.T) {
			got := r.ask(tt.method, tt.url, tt.header)
			if got.status != tt.status || !strings.Contains(got.body, tt.body) || tt.body == "" && got.body != "" {
				t.Errorf("status %d, body %q, want %d, %q", got.status, got.body, tt.status, tt.body)
			}
			for name, want := range tt.want {
				if v := got.header.Get(name); v != want {
					t.Errorf("%s is %q, want %q", name, v, want)
				}
			}
			checkBrowserHeaders(t, got.header, tt.safe)
		})
	}
}

func checkBrowserHeaders(t *testing.T, h http.Header, safe bool) {
	t.Helper()
	for name, want := range map[string]string{
		"Strict-Transport-Security": "max-age=63072000; includeSubDomains",
		"X-Frame-Options":           "DENY",
		"X-Content-Type-Options":    "nosniff",
	} {
		if got := h.Get(name); safe && got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := h.Get("Content-Security-Policy"); safe != strings.HasPrefix(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy is %q", got)
	}
}

// A challenge is echoed if it has 1 to 64 good characters (DERP-103).
func TestChallenge(t *testing.T) {
	r := run(t, testConfig(t))
	for challenge, echoed := range map[string]bool{
		"ts_derp1b.example.org": true, "A-z0:9": true, strings.Repeat("x", 64): true,
		strings.Repeat("x", 65): false, "a b": false, "a\tb": false, "<script>": false, "é": false, "": false,
	} {
		got := r.ask("GET", "http://"+r.addrs.HTTP.String()+"/generate_204", http.Header{"X-Tailscale-Challenge": {challenge}})
		want := ""
		if echoed {
			want = "response " + challenge
		}
		if v := got.header.Get("X-Tailscale-Response"); v != want || got.status != 204 {
			t.Errorf("challenge %q: status %d, response %q, want %q", challenge, got.status, v, want)
		}
		if cc := got.header.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
			t.Errorf("Cache-Control is %q", cc)
		}
	}
}

// The home page is blank or elsewhere if the operator says so; a relay that
// relays nothing answers the rest.
func TestHome(t *testing.T) {
	for _, tt := range []struct {
		home         string
		status, derp int
		location     string
		relays       bool
	}{
		{"blank", 200, 404, "", false},
		{"https://example.org/relay", 302, 426, "https://example.org/relay", true},
	} {
		c := testConfig(t)
		c.Home, c.DERP = tt.home, tt.relays
		r := run(t, c)
		if got := r.ask("GET", r.main("/x"), nil); got.status != tt.status || got.header.Get("Location") != tt.location || strings.Contains(got.body, "relay of a tailnet") {
			t.Errorf("%s: %d %q %q", tt.home, got.status, got.header.Get("Location"), got.body)
		}
		if got := r.ask("GET", r.main("/derp"), nil); got.status != tt.derp {
			t.Errorf("/derp with --derp=%v: %d %q", tt.relays, got.status, got.body)
		}
		if got := r.ask("GET", r.main("/derp/probe"), nil); got.status != 200 {
			t.Errorf("/derp/probe with --derp=%v: %d", tt.relays, got.status)
		}
	}
}

// Without TLS there is one plain listener, and no redirect to HTTPS.
func TestPlainHTTP(t *testing.T) {
	c := testConfig(t)
	c.CertMode, c.Hostname = CertNone, ""
	r := run(t, c)
	if r.addrs.HTTP.IsValid() {
		t.Errorf("it listens at %v, too", r.addrs.HTTP)
	}
	if got := r.ask("GET", "http://"+r.addrs.Main.String()+"/derp", nil); got.status != 426 {
		t.Errorf("status %d", got.status)
	}
}

// A CONNECT is refused (derp.md section 10.1).
func TestConnectIsRefused(t *testing.T) {
	c := testConfig(t)
	c.CertMode = CertNone
	r := run(t, c)
	conn, err := host.OS{}.Dial(t.Context(), "tcp", r.addrs.Main.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%+v, %v", resp, err)
	}
}

// The redirect keeps the name and knows the port.
func TestWithPort(t *testing.T) {
	for _, tt := range []struct {
		host string
		port uint16
		want string
	}{
		{"example.org", 443, "example.org"},
		{"example.org:80", 443, "example.org"},
		{"example.org:80", 8443, "example.org:8443"},
		{"[2001:db8::1]:80", 443, "[2001:db8::1]"},
		{"[2001:db8::1]", 8443, "[2001:db8::1]:8443"},
	} {
		if got := withPort(tt.host, tt.port); got != tt.want {
			t.Errorf("withPort(%q, %d) = %q, want %q", tt.host, tt.port, got, tt.want)
		}
		if _, err := url.Parse("https://" + tt.want + "/"); err != nil {
			t.Error(err)
		}
	}
}

// The STUN server answers on the relay's address and is counted (DERP-153,
// NC-11).
func TestSTUN(t *testing.T) {
	r := run(t, testConfig(t))
	conn, err := host.OS{}.ListenUDPAt(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(patience, func() { conn.Close() })
	defer stop.Stop()
	defer conn.Close()
	id := stun.NewTxID()
	request := stun.AppendRequest(nil, id)
	if err := conn.WriteBursts(r.addrs.STUN, []packet.Burst{{Buf: request, Size: len(request), Count: 1}}); err != nil {
		t.Fatal(err)
	}
	ms := []host.Message{{Buf: make([]byte, 64<<10)}}
	if _, err := conn.ReadBatch(ms); err != nil {
		t.Fatal(err)
	}
	if got, mapped, err := stun.ParseResponse(ms[0].Buf[:ms[0].N]); err != nil || got != id || mapped != conn.LocalAddr() {
		t.Errorf("answer %v, %v", mapped, err)
	}
	r.counts(`stun_requests{disposition="success"} 1`)
}
