package certs

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/host"
)

const relayName = "relay.example.com"

// config is that of a relay whose authority is a.
func (a *authority) config(dir string) ACMEConfig {
	return ACMEConfig{
		Authority: LetsEncrypt, Host: relayName, Dir: dir, DirectoryURL: directory,
		HTTPClient: &http.Client{Transport: a}, Logger: slog.New(slog.DiscardHandler),
	}
}

func provide(t *testing.T, c ACMEConfig) Provider {
	t.Helper()
	p, err := ACME(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A site is a relay's two listeners on loopback with a provider's certificates.
type site struct {
	web, tls net.Listener
}

// serveSite runs the listeners until the test ends.
func serveSite(t *testing.T, p Provider) *site {
	t.Helper()
	s := new(site)
	fallback := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fallback") })
	servers := []*http.Server{
		{Handler: p.HTTPHandler(fallback)},
		{Handler: fallback, TLSConfig: &tls.Config{GetCertificate: p.GetCertificate, NextProtos: p.NextProtos()}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)},
	}
	ended := make(chan error, len(servers))
	for i, ln := range []*net.Listener{&s.web, &s.tls} {
		var err error
		if *ln, err = (host.OS{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		hs, l := servers[i], *ln
		if hs.TLSConfig != nil {
			l = tls.NewListener(l, hs.TLSConfig)
		}
		go func() { ended <- hs.Serve(l) }()
	}
	t.Cleanup(func() {
		for _, hs := range servers {
			hs.Close()
			<-ended
		}
	})
	return s
}

// visit is how the authority looks at the site: over HTTP, or by the TLS
// extension of TLS-ALPN-01.
func (s *site) visit(ctx context.Context, challenge, name, path string) (string, error) {
	if challenge == "tls-alpn-01" {
		return s.visitTLS(ctx, name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.web.Addr().String()+path, nil)
	if err != nil {
		return "", err
	}
	req.Host = name
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// visitTLS returns the digest in the challenge's certificate (RFC 8737 section
// 3).
func (s *site) visitTLS(ctx context.Context, name string) (string, error) {
	const identifier = "1.3.6.1.5.5.7.1.31" // RFC 8737 section 6.1
	d := tls.Dialer{Config: &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", s.tls.Addr().String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	for _, e := range conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Extensions {
		if e.Id.String() == identifier && e.Critical && len(e.Value) == 34 {
			return string(e.Value[2:]), nil // behind the tag and length of an OCTET STRING
		}
	}
	return "", errors.New("no identifier in the certificate")
}

// handshake connects as a client that asks for a name and trusts the authority.
func (s *site) handshake(t *testing.T, a *authority, name string) error {
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: a.roots(), NextProtos: []string{"http/1.1"}}}
	conn, err := d.DialContext(t.Context(), "tcp", s.tls.Addr().String())
	if err == nil {
		conn.Close()
	}
	return err
}

// TestACMEHost: DERP-155: the first client that asks for the relay's name
// waits for its certificate, by either challenge; later ones, also after a
// restart, get the same; for other names nothing is ordered.
func TestACMEHost(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			a, dir := newAuthority(t), t.TempDir()
			a.offer = []string{challenge}
			p := provide(t, a.config(dir))
			s := serveSite(t, p)
			a.visit = s.visit
			if want := []string{"http/1.1", "acme-tls/1"}; !slices.Equal(p.NextProtos(), want) {
				t.Errorf("offers %v, want %v", p.NextProtos(), want)
			}
			for _, name := range []string{"other.example.com", "x." + relayName, "203.0.113.1"} {
				if err := s.handshake(t, a, name); err == nil {
					t.Errorf("%s has a certificate", name)
				}
			}
			if n := a.count(); n != 0 {
				t.Fatalf("%d orders for foreign names", n)
			}
			for range 2 {
				if err := s.handshake(t, a, relayName); err != nil {
					t.Fatal(err)
				}
			}
			restarted := serveSite(t, provide(t, a.config(dir)))
			if err := restarted.handshake(t, a, relayName); err != nil {
				t.Error(err)
			}
			if n := a.count(); n != 1 {
				t.Errorf("%d orders, want 1", n)
			}
			if b, err := s.visit(t.Context(), "http-01", relayName, "/anything"); b != "fallback" {
				t.Errorf("port 80 answers %q: %v", b, err)
			}
		})
	}
}

// TestACMEBinding: DERP-155: Google's authority learns the account by a key in
// either form of base64, and the address to write to.
func TestACMEBinding(t *testing.T) {
	secret := []byte("\xfb\xef\xff\xfe secret") // its base64 has both digits that differ
	for name, text := range map[string]string{
		"URL":         base64.RawURLEncoding.EncodeToString(secret),
		"URL, padded": base64.URLEncoding.EncodeToString(secret),
		"standard":    base64.StdEncoding.EncodeToString(secret),
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			a.eab = secret
			c := a.config(t.TempDir())
			c.Authority, c.Email, c.EABKeyID, c.EABKey = GCP, "ops@example.com", "kid-1", text
			s := serveSite(t, provide(t, c))
			a.visit = s.visit
			if err := s.handshake(t, a, relayName); err != nil {
				t.Error(err)
			}
			for _, acct := range a.accounts {
				if !slices.Equal(acct.contact, []string{"mailto:ops@example.com"}) {
					t.Errorf("contact %v", acct.contact)
				}
			}
		})
	}
}

// TestACMEConfig: DERP-155, DERP-156: what cannot work is refused before
// anything is asked or written, in words that name the option.
func TestACMEConfig(t *testing.T) {
	google := ACMEConfig{Authority: GCP, Host: relayName, Dir: "d", Email: "a@b", EABKeyID: "k", EABKey: "c2VjcmV0"}
	lets := ACMEConfig{Authority: LetsEncrypt, Host: relayName, Dir: "d"}
	for name, c := range map[string]struct {
		base   ACMEConfig
		change func(*ACMEConfig)
		want   string
	}{
		"authority":      {lets, func(c *ACMEConfig) { c.Authority = "manual" }, "certmode"},
		"no directory":   {lets, func(c *ACMEConfig) { c.Dir = "" }, "certdir"},
		"no host":        {lets, func(c *ACMEConfig) { c.Host = "" }, "hostname"},
		"short name":     {lets, func(c *ACMEConfig) { c.Host = "relay" }, "hostname"},
		"unicode":        {lets, func(c *ACMEConfig) { c.Host = "bücher.example" }, "xn--"},
		"port":           {lets, func(c *ACMEConfig) { c.Host = relayName + ":443" }, "hostname"},
		"address":        {lets, func(c *ACMEConfig) { c.Host = "203.0.113.1" }, "acme-ip-certs"},
		"IPv6 address":   {lets, func(c *ACMEConfig) { c.Host = "2001:db8::1" }, "acme-ip-certs"},
		"Google address": {google, func(c *ACMEConfig) { c.Host = "203.0.113.1" }, "DNS name"},
		"Google IPs":     {google, func(c *ACMEConfig) { c.IPCerts = true }, "acme-ip-certs"},
		"no key ID":      {google, func(c *ACMEConfig) { c.EABKeyID = "" }, "acme-eab-kid"},
		"no key":         {google, func(c *ACMEConfig) { c.EABKey = "" }, "acme-eab-key"},
		"no email":       {google, func(c *ACMEConfig) { c.Email = "" }, "acme-email"},
		"bad key":        {google, func(c *ACMEConfig) { c.EABKey = "secret!" }, "acme-eab-key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "certs")
			cfg := c.base
			cfg.Dir = dir
			c.change(&cfg)
			_, err := ACME(cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret!") {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("the directory was made")
			}
		})
	}
	for _, c := range []ACMEConfig{google, lets} {
		p := provide(t, c)
		if err := p.Reload(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Serve(ctx); !errors.Is(err, context.Canceled) || fmt.Sprint(p) == "" {
			t.Errorf("%v: Serve ended with %v", p, err)
		}
	}
}
