package relayd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// A reload takes up a new receive limit; a bad file keeps the old one and is
// named (DERP-67).
func TestReloadRate(t *testing.T) {
	c := testConfig(t)
	c.RateConfig = writeFile(t, `{"PerClientRateLimitBytesPerSec": 1000000}`)
	r := run(t, c)
	limit := func() relay.RateLimit { return r.relay.Stats().RateLimit }
	if got := limit(); got.BytesPerSecond != 1_000_000 {
		t.Errorf("at the start the limit is %+v", got)
	}
	rewrite(t, c.RateConfig, `{"PerClientRateLimitBytesPerSec": 2000000}`)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := limit(); got.BytesPerSecond != 2_000_000 {
		t.Errorf("after a reload the limit is %+v", got)
	}
	rewrite(t, c.RateConfig, `{"PerClientRateLimitBytesPerSec": "x"}`)
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "the old limit stays") || !strings.Contains(err.Error(), c.RateConfig) {
		t.Errorf("a bad file: %v", err)
	}
	if got := limit(); got.BytesPerSecond != 2_000_000 {
		t.Errorf("after a bad file the limit is %+v", got)
	}
	rewrite(t, c.RateConfig, `{"PerClientRateLimitBytesPerSec": 0}`)
	if err := r.Reload(); err != nil || limit() != (relay.RateLimit{}) {
		t.Errorf("without a limit: %+v, %v", limit(), err)
	}
}

// A reload takes up a new certificate, which the next client sees; a bad one
// keeps the old one. Who is connected stays so.
func TestReloadCertificate(t *testing.T) {
	c := testConfig(t)
	r := run(t, c)
	before := r.client(derp.ClientInfo{})
	crt, keyFile := filepath.Join(c.CertDir, "127.0.0.1.crt"), filepath.Join(c.CertDir, "127.0.0.1.key")
	rewrite(t, crt, "no certificate")
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "the old certificate stays") || !strings.Contains(err.Error(), crt) {
		t.Errorf("a bad file: %v", err)
	}
	other := testConfig(t)
	if _, err := New(other); err != nil { // makes another certificate for the same host
		t.Fatal(err)
	}
	for to, name := range map[string]string{crt: "127.0.0.1.crt", keyFile: "127.0.0.1.key"} {
		b, err := os.ReadFile(filepath.Join(other.CertDir, name))
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, to, string(b))
	}
	if _, err := r.login(key.NewNode(), derp.ClientInfo{}); err == nil {
		t.Error("the relay shows a certificate that it has not read yet")
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	after := r.client(derp.ClientInfo{})
	if err := after.Send(before.key, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if m, ok := before.next().(derp.ReceivedPacket); !ok || m.Source != after.key {
		t.Errorf("got %+v", m)
	}
}

func rewrite(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A key file that appears between the check and the start is not replaced.
func TestKeyIsNeverReplaced(t *testing.T) {
	c := testConfig(t)
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, c.KeyFile, "another relay's")
	if err := d.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "--key-file") {
		t.Errorf("Serve returned %v", err)
	}
	if b, err := os.ReadFile(c.KeyFile); err != nil || string(b) != "another relay's" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if a, _ := d.Addrs(); a != (Addrs{}) {
		t.Errorf("it says that it listens: %v", a)
	}
}

// The printed map is that of a client: address, ports, pinned certificate.
func TestMap(t *testing.T) {
	c := testConfig(t)
	c.Addr, c.STUNPort, c.HTTPPort = "127.0.0.1:8443", 3479, 80
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	n := d.mapNode()
	if n.HostName != "127.0.0.1" || n.IPv4 != "127.0.0.1" || n.IPv6 != "none" || n.DERPPort != 8443 || n.STUNPort != 3479 ||
		!n.CanPort80 || !strings.HasPrefix(n.CertName, "sha256-raw:") || n.RegionID != customRegion {
		t.Errorf("node %+v", n)
	}
	if m := d.Map(); len(m.Regions) != 1 || m.Regions[customRegion].Nodes[0].CertName != n.CertName {
		t.Errorf("map %+v", m)
	}
	if _, err := os.Stat(c.KeyFile); err == nil {
		t.Error("printing the map has made a key")
	}
}
