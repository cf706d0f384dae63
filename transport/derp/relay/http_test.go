package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/websocket"
)

// TestEndpoints: DERP-95, DERP-103, DERP-173.
func TestEndpoints(t *testing.T) {
	h := New(key.NewNode(), Options{}).Handler()
	long := strings.Repeat("x", 64)
	for _, tt := range []struct {
		method, path, header string // "Name: value"
		status               int
		want                 string // header of the answer
		body                 string
	}{
		{"GET", "/derp", "", 426, "", "DERP requires connection upgrade\n"},
		{"GET", "/derp", "Upgrade: h2c", 426, "", "DERP requires connection upgrade\n"},
		{"GET", "/derp", "Upgrade: DERP", 500, "", "DERP requires HTTP/1.1\n"}, // a recorder is no hijacker
		{"GET", "/derp/probe", "", 200, "Access-Control-Allow-Origin: *", ""},
		{"HEAD", "/derp/probe", "", 200, "Access-Control-Allow-Origin: *", ""},
		{"POST", "/derp/probe", "", 405, "", "Method Not Allowed\n"},
		{"GET", "/derp/latency-check", "", 200, "Access-Control-Allow-Origin: *", ""},
		{"GET", "/generate_204", "", 204, "X-Tailscale-Response: ", ""},
		{"GET", "/generate_204", "X-Tailscale-Challenge: a.Z_0:9-", 204, "X-Tailscale-Response: response a.Z_0:9-", ""},
		{"GET", "/generate_204", "X-Tailscale-Challenge: " + long, 204, "X-Tailscale-Response: response " + long, ""},
		{"GET", "/generate_204", "X-Tailscale-Challenge: " + long + "x", 204, "X-Tailscale-Response: ", ""},
		{"GET", "/generate_204", "X-Tailscale-Challenge: a b", 204, "X-Tailscale-Response: ", ""},
		{"GET", "/generate_204", "X-Tailscale-Challenge: a\x00", 204, "X-Tailscale-Response: ", ""},
		{"GET", "/generate_204", "", 204, "Cache-Control: no-cache, no-store, must-revalidate, no-transform, max-age=0", ""},
		{"GET", "/else", "", 404, "", "404 page not found\n"},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		if name, value, ok := strings.Cut(tt.header, ": "); ok {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		name, value, _ := strings.Cut(tt.want, ": ")
		if w.Code != tt.status || w.Body.String() != tt.body || w.Header().Get(name) != value {
			t.Errorf("%s %s with %q: %d %q, %s: %q; want %d %q, %q", tt.method, tt.path, tt.header,
				w.Code, w.Body, name, w.Header().Get(name), tt.status, tt.body, value)
		}
	}
}

// TestWebSocket: DERP-99, DERP-100: packets of all sizes between a client over
// WebSocket and one without, on one relay.
func TestWebSocket(t *testing.T) {
	st := run(t, true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	url := fmt.Sprintf("https://127.0.0.1:%d/derp", st.node.DERPPort)
	conn, err := websocket.Dial(ctx, url, &tls.Config{RootCAs: st.roots}, new(net.Dialer).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	a, b := login(t, derp.NewStream(conn), key.NewNode()), st.join(t, key.NewNode())
	for _, n := range []int{0, 1, 1400, 30000, 65536} {
		a.send(b.key, strings.Repeat("x", n))
		b.expectPacket(a.key, strings.Repeat("x", n))
		b.send(a.key, strings.Repeat("y", n))
		a.expectPacket(b.key, strings.Repeat("y", n))
	}
	if n := st.Stats().WebSockets; n != 1 {
		t.Errorf("%d WebSockets accepted, want 1", n)
	}
}

// TestUpgrade: DERP-96..99: the bytes of the upgrade, with the login behind the
// request in the same segment.
func TestUpgrade(t *testing.T) {
	for name, tt := range map[string]struct{ header, response string }{
		"normal":        {"Upgrade: DERP\r\n", "101"},
		"very old":      {"Upgrade: WebSocket\r\n", "101"},
		"fast start":    {"Upgrade: derp\r\nDerp-Fast-Start: 1\r\n", ""},
		"not ideal":     {"Upgrade: DERP\r\nIdeal-Node: 1b\r\n", "101"},
		"fast start: 0": {"Upgrade: DERP\r\nDerp-Fast-Start: 0\r\n", "101"},
	} {
		t.Run(name, func(t *testing.T) {
			st := run(t, false)
			c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", st.node.DERPPort))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			k := key.NewNode()
			first, err := derp.AppendClientInfo([]byte("GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"+tt.header+"\r\n"), k, st.PublicKey(), derp.ClientInfo{Version: 2})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(first); err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(c)
			if tt.response != "" {
				want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\nDerp-Public-Key: " + st.PublicKey().Hex() + "\r\n\r\n"
				got := make([]byte, len(want))
				if _, err := io.ReadFull(br, got); err != nil || string(got) != want {
					t.Fatalf("response %q, %v", got, err)
				}
			}
			fr := derp.NewFrameReader(br, nil)
			for _, want := range []derp.FrameType{derp.FrameServerKey, derp.FrameServerInfo} {
				typ, n, err := fr.Header()
				if err != nil || typ != want {
					t.Fatalf("frame %v, %v; want %v", typ, err, want)
				}
				if err := fr.Discard(n); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMetaCert: DERP-106, DERP-107.
func TestMetaCert(t *testing.T) {
	s := New(key.NewNode(), Options{})
	c, err := x509.ParseCertificate(s.MetaCert())
	if err != nil {
		t.Fatal(err)
	}
	if want := "derpkey" + s.PublicKey().Hex(); c.Subject.CommonName != want || c.Issuer.CommonName != want || c.SerialNumber.Int64() != 2 || c.IsCA || !c.BasicConstraintsValid {
		t.Errorf("certificate %q of %q, serial %v, CA %v", c.Subject, c.Issuer, c.SerialNumber, c.IsCA)
	}
	if c.Version != 3 || time.Until(c.NotAfter) < 29*24*time.Hour || time.Since(c.NotBefore) < 29*24*time.Hour {
		t.Errorf("version %d, %v to %v", c.Version, c.NotBefore, c.NotAfter)
	}
	inner, err := SelfSigned("relay.example", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(inner.Certificate[0])
	if err != nil || leaf.VerifyHostname("relay.example") != nil || leaf.VerifyHostname("192.0.2.1") != nil {
		t.Errorf("self-signed certificate %v, %v", leaf.DNSNames, err)
	}
	cfg := s.TLSConfig(inner)
	for range 2 {
		got, err := cfg.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil || len(got.Certificate) != 2 || string(got.Certificate[1]) != string(s.MetaCert()) {
			t.Fatalf("chain of %d, %v", len(got.Certificate), err)
		}
	}
	if len(inner.Certificate) != 1 {
		t.Error("the certificate that was wrapped was changed")
	}
	if _, err := SelfSigned(); err == nil {
		t.Error("a certificate for nobody")
	}
}

// TestAddMetaCertPassesOn: errors and an absent certificate stay what they are.
func TestAddMetaCertPassesOn(t *testing.T) {
	s := New(key.NewNode(), Options{})
	cfg := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.ErrNoProgress }}
	s.AddMetaCert(cfg)
	if c, err := cfg.GetCertificate(nil); c != nil || err != io.ErrNoProgress {
		t.Errorf("got %v, %v", c, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic without GetCertificate")
		}
	}()
	s.AddMetaCert(&tls.Config{})
}
