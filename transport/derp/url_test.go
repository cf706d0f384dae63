package derp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// TestURL: DERP-110, DERP-122: what a URL means, as what is dialed and asked.
func TestURL(t *testing.T) {
	for raw, tt := range map[string]struct{ dials, head, err string }{
		"http://r.test":              {"tcp4 r.test:80", "GET /derp HTTP/1.1\r\nHost: r.test\r\n", ""},
		"http://r.test/":             {"tcp4 r.test:80", "GET / HTTP/1.1\r\nHost: r.test\r\n", ""},
		"http://r.test:443/x?y=z":    {"tcp4 r.test:443", "GET /x?y=z HTTP/1.1\r\nHost: r.test:443\r\n", ""},
		"http://[2001:db8::1]/derp":  {"tcp6 [2001:db8::1]:80", "GET /derp HTTP/1.1\r\nHost: [2001:db8::1]\r\n", ""},
		"http://192.0.2.1:3340/derp": {"tcp4 192.0.2.1:3340", "GET /derp HTTP/1.1\r\nHost: 192.0.2.1:3340\r\n", ""},
		"https://r.test/derp":        {"tcp4 r.test:443", "", ""},
		"https://r.test:8443/derp":   {"tcp4 r.test:8443", "", ""},
		"relay://r.test:99/derp":     {"tcp4 r.test:99", "", ""},
		"relay://r.test/derp":        {"", "", "no port is given"},
		"r.test/derp":                {"", "", "names no host"},
		"http://r.test:0":            {"", "", "port is not 1 to 65535"},
		"http://r.test:70000":        {"", "", "port is not 1 to 65535"},
		"http://\x7f":                {"", "", "relay URL"},
	} {
		t.Run(raw, func(t *testing.T) {
			heads := make(chan string, 2)
			n := &scripted{dial: func(_ context.Context, network, address string) (net.Conn, error) {
				if network == "tcp6" && !strings.Contains(address, "[") || tt.head == "" {
					return nil, errRefused
				}
				return answer("HTTP/1.1 404 Not Found\r\n\r\n", heads), nil
			}}
			c, err := NewClient(key.NewNode(), raw, ClientOptions{Dialer: &Dialer{Network: n}})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Connect(t.Context()); err == nil {
				t.Error("connected to nothing")
			}
			if !strings.Contains(strings.Join(n.calls, ","), tt.dials) {
				t.Errorf("dialed %v, want %s", n.calls, tt.dials)
			}
			if tt.head != "" {
				if got := <-heads; !strings.HasPrefix(got, tt.head) {
					t.Errorf("asked %q, want %q", got, tt.head)
				}
			}
		})
	}
}

// TestURLWays: another host or function to connect with does not change what is
// asked for (DERP-117, DERP-126, DERP-149).
func TestURLWays(t *testing.T) {
	const asked = "GET /derp HTTP/1.1\r\nHost: r.test:8080\r\n"
	for name, tt := range map[string]struct {
		host      string // Dialer.DialHost
		ownDialer bool
		dials     string
	}{
		"another host":    {"10.0.0.1", false, "tcp4 10.0.0.1:8080"},
		"another name":    {"inside.test", false, "tcp4 inside.test:8080"},
		"another dialer":  {"", true, "tcp r.test:8080"},
		"host and dialer": {"10.0.0.1", true, "tcp 10.0.0.1:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			heads := make(chan string, 2)
			n := &scripted{dial: func(_ context.Context, network, _ string) (net.Conn, error) {
				if network == "tcp6" {
					return nil, errRefused
				}
				return answer("HTTP/1.1 404 Not Found\r\n\r\n", heads), nil
			}}
			c, err := NewClient(key.NewNode(), "http://r.test:8080/derp", ClientOptions{Dialer: &Dialer{Network: n, DialHost: tt.host}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if tt.ownDialer {
				c.SetURLDialer(n.Dial)
			}
			if err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), `derp: http://r.test:8080/derp: HTTP status "404 Not Found"`) {
				t.Errorf("error %v", err)
			}
			if n.calls[0] != tt.dials && n.calls[len(n.calls)-1] != tt.dials {
				t.Errorf("dialed %v, want %s", n.calls, tt.dials)
			}
			if got := <-heads; !strings.HasPrefix(got, asked) {
				t.Errorf("asked %q, want %q", got, asked)
			}
		})
	}
}

// TestWebSocketHook: DERP-102: a WebSocket goes to the first node of a region
// only, with the same check of its certificate and through the same proxy; the
// rest of the client does not see a difference.
func TestWebSocketHook(t *testing.T) {
	for name, tt := range map[string]struct {
		node  netmap.DERPNode
		plain bool
		url   string
		dials string
	}{
		"TLS":   {netmap.DERPNode{Name: "1b", HostName: "b.test"}, false, "https://b.test/derp", "tcp p.test:80"},
		"port":  {netmap.DERPNode{Name: "1b", HostName: "b.test", DERPPort: 8443}, false, "https://b.test:8443/derp", "tcp p.test:80"},
		"plain": {netmap.DERPNode{Name: "1b", HostName: "b.test"}, true, "http://b.test:3340/derp", "tcp p.test:80"},
	} {
		t.Run(name, func(t *testing.T) {
			connects := make(chan string, 1)
			n := &scripted{dial: func(context.Context, string, string) (net.Conn, error) {
				return answer("HTTP/1.1 200 OK\r\n\r\n", connects), nil
			}}
			d := &Dialer{Network: n, PlainHTTP: tt.plain, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "p.test"})}
			var asked string
			d.WebSocket = func(ctx context.Context, url string, cfg *tls.Config, dial DialFunc) (net.Conn, error) {
				asked = url
				if cfg.ServerName != "b.test" || cfg.VerifyConnection == nil || cfg.NextProtos != nil {
					t.Errorf("TLS for %q", cfg.ServerName)
				}
				return dial(ctx, "tcp", "elsewhere:1")
			}
			region := &netmap.Region{RegionID: 1, Nodes: []*netmap.DERPNode{{STUNOnly: true, HostName: "a.test"}, &tt.node, {Name: "1c", HostName: "c.test"}}}
			s, err := d.Dial(t.Context(), region)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if asked != tt.url || s.Node != &tt.node || !s.ServerKey.IsZero() || s.request != nil {
				t.Errorf("asked %s of %+v", asked, s.Node)
			}
			if !cmp.Equal(n.calls, []string{tt.dials}) {
				t.Errorf("dialed %v, want %s", n.calls, tt.dials)
			}
			if head := <-connects; !strings.HasPrefix(head, "CONNECT b.test:") {
				t.Errorf("proxy was asked %q", head)
			}
			calls := 0
			d.WebSocket = func(context.Context, string, *tls.Config, DialFunc) (net.Conn, error) {
				calls++
				return nil, errRefused
			}
			if _, err := d.Dial(t.Context(), region); !errors.Is(err, errRefused) || calls != 1 {
				t.Errorf("%d nodes tried, %v; want the first alone", calls, err)
			}
		})
	}
}
