package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// put stores a self-signed certificate for hosts under a name.
func put(t *testing.T, dir, name string, hosts ...string) tls.Certificate {
	t.Helper()
	cert, err := relay.SelfSigned(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := pairIn(dir, name).store(&cert); err != nil {
		t.Fatal(err)
	}
	return cert
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hello(name string) *tls.ClientHelloInfo { return &tls.ClientHelloInfo{ServerName: name} }

// sameCert reports whether a handshake for a name gets a certificate.
func sameCert(t *testing.T, p Provider, name string, want tls.Certificate) {
	t.Helper()
	got, err := p.GetCertificate(hello(name))
	if err != nil || !bytes.Equal(got.Certificate[0], want.Certificate[0]) {
		t.Errorf("%q does not get its certificate: %v", name, err)
	}
}

// TestManual: DERP-154: the files are named after the host, and a client gets
// the certificate if it asks for the host.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	want := put(t, dir, "relay.example.com", "relay.example.com")
	m, err := Manual(dir, "relay.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	sameCert(t, m, "relay.example.com", want)
	sameCert(t, m, "RELAY.example.com", want) // RFC 4343
	for _, name := range []string{"", "example.com", "x.relay.example.com", "203.0.113.1"} {
		if _, err := m.GetCertificate(hello(name)); err == nil || !strings.Contains(err.Error(), "relay.example.com") {
			t.Errorf("%q gets a certificate, or: %v", name, err)
		}
	}
	if n := m.MapNode(); n.HostName != "relay.example.com" || n.CertName != "" {
		t.Errorf("map node %+v pins a certificate of a name", n)
	}
	if p := m.NextProtos(); len(p) != 1 || p[0] != "http/1.1" {
		t.Errorf("offers %v", p)
	}
	if h := http.NewServeMux(); m.HTTPHandler(h) != http.Handler(h) {
		t.Error("port 80 does not serve the fallback")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Serve(ctx); err != context.Canceled {
		t.Errorf("Serve ended with %v", err)
	}
}

// TestFileName: DERP-154: no character of a host name leads out of the
// directory.
func TestFileName(t *testing.T) {
	for host, want := range map[string]string{
		"relay-1.example.com": "relay-1.example.com",
		"2001:db8::1":         "2001db81",
		"../../etc/passwd":    "....etcpasswd",
		`a\b/c:d_e f*é`:       "abcdef",
		"//":                  "",
	} {
		if got := fileName(host); got != want {
			t.Errorf("%q becomes %q, want %q", host, got, want)
		}
	}
	for _, c := range [][2]string{{"", "relay.example.com"}, {t.TempDir(), ""}, {t.TempDir(), "//"}} {
		if _, err := Manual(c[0], c[1], nil); err == nil {
			t.Errorf("directory %q and host %q are taken", c[0], c[1])
		}
	}
}

// TestManualIP: DERP-154: for an address without files a certificate is made,
// kept and shown as a map node; the next start finds it again.
func TestManualIP(t *testing.T) {
	for host, name := range map[string]string{"203.0.113.1": "203.0.113.1", "2001:db8::1": "2001db81"} {
		dir := filepath.Join(t.TempDir(), "certs")
		var logged bytes.Buffer
		m, err := Manual(dir, host, slog.New(slog.NewJSONHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := m.GetCertificate(hello(""))
		if err != nil {
			t.Fatal(err)
		}
		checkSelfSigned(t, cert, host)
		sameCert(t, m, "any.example.com", *cert) // an address has no server name to compare
		checkModes(t, dir, name)

		want := netmap.DERPNode{Name: "custom", RegionID: 900, HostName: host, CertName: derp.PinCertName(cert.Certificate[0])}
		var line struct{ Node string }
		var node netmap.DERPNode
		if err := json.Unmarshal(logged.Bytes(), &line); err != nil || json.Unmarshal([]byte(line.Node), &node) != nil {
			t.Errorf("logged %q: %v", logged.String(), err)
		}
		if node != want || m.MapNode() != want {
			t.Errorf("map node %+v, logged %+v, want %+v", m.MapNode(), node, want)
		}
		again, err := Manual(dir, host, nil)
		if err != nil {
			t.Fatal(err)
		}
		sameCert(t, again, "", *cert)
	}
}

// checkSelfSigned: ECDSA P-256, CN and SAN are the address, a year, for servers.
func checkSelfSigned(t *testing.T, cert *tls.Certificate, host string) {
	t.Helper()
	leaf := cert.Leaf
	k, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() || leaf.Subject.CommonName != host || leaf.VerifyHostname(host) != nil {
		t.Errorf("%s: a certificate with %T for %q and %v", host, leaf.PublicKey, leaf.Subject.CommonName, leaf.IPAddresses)
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("%s: extended usage %v", host, leaf.ExtKeyUsage)
	}
	if d := time.Until(leaf.NotAfter); d < 364*24*time.Hour || d > 366*24*time.Hour {
		t.Errorf("%s: ends in %v", host, d)
	}
}

// checkModes: only the user may read the directory and its two files.
func checkModes(t *testing.T, dir, name string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return // has other permissions
	}
	files := map[string]os.FileMode{dir: 0o700, pairIn(dir, name).crt: 0o600, pairIn(dir, name).key: 0o600}
	for path, want := range files {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, want mode %v", path, fi, want)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("%s holds %v", dir, all)
	}
}

// TestManualBad: what the files must not be is an error that names the file, at
// the start and at a reload, which keeps what was good.
func TestManualBad(t *testing.T) {
	const host = "203.0.113.1"
	for name, c := range map[string]struct {
		spoil func(dir string)
		want  string
	}{
		"no certificate": {func(dir string) { os.Remove(pairIn(dir, host).crt) }, host + ".crt"},
		"no key":         {func(dir string) { os.Remove(pairIn(dir, host).key) }, host + ".key"},
		"garbage":        {func(dir string) { write(t, pairIn(dir, host).crt, "x") }, host + ".crt"},
		"empty key":      {func(dir string) { write(t, pairIn(dir, host).key, "") }, host + ".key"},
		"another host's": {func(dir string) { put(t, dir, host, "203.0.113.2") }, "not for " + host},
		"another's key": {func(dir string) {
			b, _ := os.ReadFile(pairIn(dir, host).crt)
			put(t, dir, host, host)
			write(t, pairIn(dir, host).crt, string(b))
		}, host + ".key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old := put(t, dir, host, host)
			m, err := Manual(dir, host, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(dir)
			if err := m.Reload(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("reload: %v, want an error with %q", err, c.want)
			}
			sameCert(t, m, "", old)
			if _, err := Manual(dir, host, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("start: %v, want an error with %q", err, c.want)
			}
			fresh := put(t, dir, host, host)
			if err := m.Reload(); err != nil {
				t.Error(err)
			}
			sameCert(t, m, "", fresh)
		})
	}
	if _, err := Manual(t.TempDir(), "relay.example.com", nil); err == nil || !strings.Contains(err.Error(), "relay.example.com.crt") {
		t.Errorf("a name without files: %v", err)
	}
}

// TestUsable: a certificate is good for its host and in its time only.
func TestUsable(t *testing.T) {
	cert, err := relay.SelfSigned("relay.example.com", "2001:db8::1")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		now  time.Time
		good bool
	}{
		{"relay.example.com", time.Now(), true},
		{"2001:db8::1", time.Now(), true},
		{"2001:db8::2", time.Now(), false},
		{"example.com", time.Now(), false},
		{"relay.example.com", leaf.NotBefore.Add(-time.Second), false},
		{"relay.example.com", leaf.NotAfter.Add(time.Second), false},
	} {
		if err := usable(leaf, c.host, c.now); (err == nil) != c.good {
			t.Errorf("%s at %v: %v", c.host, c.now, err)
		}
	}
}

// TestShared: the certificate is shared, and a relay that adds its MetaCert to
// each handshake leaves it as it is (DERP-107, DERP-155).
func TestShared(t *testing.T) {
	m, err := Manual(t.TempDir(), "203.0.113.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := relay.New(key.NewNode(), relay.Options{})
	defer s.Close()
	cfg := &tls.Config{GetCertificate: m.GetCertificate}
	s.AddMetaCert(cfg)
	for range 3 {
		got, err := cfg.GetCertificate(hello(""))
		if err != nil || len(got.Certificate) != 2 || !bytes.Equal(got.Certificate[1], s.MetaCert()) {
			t.Fatalf("a handshake gets a chain of %d: %v", len(got.Certificate), err)
		}
	}
	if cert, err := m.GetCertificate(hello("")); err != nil || len(cert.Certificate) != 1 {
		t.Errorf("the provider's chain has become %d long: %v", len(cert.Certificate), err)
	}
}
