package relayd

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// writeFile makes a file in a folder of its own and returns its name.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// What cannot be used is an error that names its setting, before anything is
// opened or made.
func TestBadSettings(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	psk := writeFile(t, strings.Repeat("ab", 32))
	for _, tt := range []struct {
		setting string
		change  func(*Config)
		text    string // part of the error
	}{
		{"addr", func(c *Config) { c.Addr = "443" }, "want [IP]:port"},
		{"addr", func(c *Config) { c.Addr = "example.org:443" }, "not an IP address"},
		{"addr", func(c *Config) { c.Addr = ":65536" }, "not a TCP port"},
		{"addr", func(c *Config) { c.Addr = ":-1" }, "not a TCP port"},
		{"addr", func(c *Config) { c.Addr = "" }, "want [IP]:port"},
		{"http-port", func(c *Config) { c.HTTPPort = -2 }, "-1 for none"},
		{"http-port", func(c *Config) { c.HTTPPort = 65536 }, "-1 for none"},
		{"stun-port", func(c *Config) { c.STUNPort = -1 }, "--stun=false"},
		{"tcp-write-timeout", func(c *Config) { c.WriteTimeout = -1 }, "duration"},
		{"tcp-user-timeout", func(c *Config) { c.UserTimeout = -1 }, "duration"},
		{"drain", func(c *Config) { c.Drain = -1 }, "duration"},
		{"debug-addr", func(c *Config) { c.DebugAddr = "192.0.2.1:3341" }, "--debug-allow"},
		{"debug-addr", func(c *Config) { c.DebugAddr = ":3341" }, "--debug-allow"},
		{"debug-addr", func(c *Config) { c.DebugAddr = "x" }, "want [IP]:port"},
		{"debug-allow", func(c *Config) { c.DebugAllow = []string{"192.0.2.0/33"} }, "192.0.2.0/24"},
		{"metrics-addr", func(c *Config) { c.MetricsAddr = "9090" }, "want [IP]:port"},
		{"hostname", func(c *Config) { c.Hostname = "" }, "--certmode none"},
		{"hostname", func(c *Config) { c.Hostname = "a b" }, "neither a DNS name"},
		{"hostname", func(c *Config) { c.Hostname = "../etc/passwd" }, "neither a DNS name"},
		{"hostname", func(c *Config) { c.CertMode, c.Hostname = CertLetsEncrypt, "192.0.2.1" }, "--acme-ip-certs"},
		{"certmode", func(c *Config) { c.CertMode = "selfsigned" }, "want one of manual, letsencrypt, gcp, none"},
		{"certmode", func(c *Config) { c.CertMode, c.Hostname = CertGCP, "example.org" }, "--acme-eab-kid"},
		{"certmode", func(c *Config) { c.Hostname = "example.org" }, "example.org.crt"},
		{"certdir", func(c *Config) { c.CertDir = "" }, "folder"},
		{"acme-ip-certs", func(c *Config) { c.ACMEIPCerts = true }, "letsencrypt"},
		{"acme-eab-key", func(c *Config) { c.ACMEEABKey = "file:" + missing }, missing},
		{"mesh-psk-file", func(c *Config) { c.PSKFile = missing }, missing},
		{"mesh-psk-file", func(c *Config) { c.PSKFile = writeFile(t, "abcd") }, "openssl rand -hex 32"},
		{"mesh-with", func(c *Config) { c.MeshWith = []string{"derp1.example.org"} }, "--mesh-psk-file"},
		{"mesh-with", func(c *Config) { c.PSKFile, c.MeshWith = psk, []string{"https://derp1.example.org"} }, "name/address"},
		{"mesh-with", func(c *Config) { c.PSKFile, c.MeshWith = psk, []string{"derp1/a b"} }, "name/address"},
		{"mesh-with", func(c *Config) { c.PSKFile, c.MeshWith = psk, []string{"derp1:0"} }, "name/address"},
		{"mesh-ca", func(c *Config) { c.MeshCA = missing }, missing},
		{"mesh-ca", func(c *Config) { c.MeshCA = psk }, "no certificate"},
		{"socket", func(c *Config) { c.Socket = "/run/x" }, "--verify-clients"},
		{"verify-client-url", func(c *Config) { c.VerifyURL = "example.org/admit" }, "https://"},
		{"verify-client-url", func(c *Config) { c.VerifyURL = "ftp://example.org" }, "https://"},
		{"accept-connection-limit", func(c *Config) { c.AcceptLimit = -1 }, "per second"},
		{"accept-connection-limit", func(c *Config) { c.AcceptLimit = math.NaN() }, "per second"},
		{"accept-connection-burst", func(c *Config) { c.AcceptLimit = 10 }, "at once"},
		{"accept-connection-burst", func(c *Config) { c.AcceptBurst = -1 }, "number"},
		{"duplicates", func(c *Config) { c.Duplicates = "all" }, "disable-fighters"},
		{"rate-config", func(c *Config) { c.RateConfig = missing }, missing},
		{"rate-config", func(c *Config) { c.RateConfig = writeFile(t, "{") }, "file"},
		{"rate-config", func(c *Config) { c.RateConfig = writeFile(t, `{"PerClientRate": 1}`) }, "unknown field"},
		{"rate-config", func(c *Config) { c.RateConfig = writeFile(t, `{"PerClientRateLimitBytesPerSec": -1}`) }, "between"},
		{"home", func(c *Config) { c.Home = "about" }, "blank"},
		{"bootstrap-dns-names", func(c *Config) { c.BootstrapDNS = []string{"a b"} }, "a b"},
		{"log-drops", func(c *Config) { c.LogDrops = []string{"nodekey:x"} }, "want a node key"},
		{"key-file", func(c *Config) { c.KeyFile = "" }, "first start"},
		{"key-file", func(c *Config) { c.KeyFile = writeFile(t, "{}") }, "move the file away"},
		{"key-file", func(c *Config) { c.KeyFile = writeFile(t, "x") }, "move it away"},
		{"key-file", func(c *Config) { c.KeyFile = filepath.Join(psk, "relay.key") }, "not a"},
	} {
		c := testConfig(t)
		tt.change(&c)
		_, err := New(c)
		var bad *ConfigError
		if !errors.As(err, &bad) || bad.Setting != tt.setting || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("--%s: %v, want %q", tt.setting, err, tt.text)
		}
		for _, made := range []string{c.KeyFile, c.CertDir} {
			if made == psk || strings.HasPrefix(made, psk) || filepath.Base(made) == "file" || made == "" {
				continue
			}
			if _, err := os.Stat(made); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("--%s: %s was made", tt.setting, made)
			}
		}
	}
}

// All that is wrong is said at once.
func TestAllErrorsAtOnce(t *testing.T) {
	c := testConfig(t)
	c.Addr, c.Home, c.Duplicates = "x", "y", "z"
	_, err := New(c)
	for _, setting := range []string{"--addr", "--home", "--duplicates"} {
		if err == nil || !strings.Contains(err.Error(), setting+": ") {
			t.Errorf("%v does not name %s", err, setting)
		}
	}
}

// Good settings, as they are understood.
func TestGoodSettings(t *testing.T) {
	psk := writeFile(t, strings.Repeat("ab", 32)+"\n")
	c := testConfig(t)
	c.PSKFile, c.MeshWith = psk, []string{"derp1.example.org", "derp2.example.org/10.0.0.2", "derp3.example.org:8443"}
	c.RateConfig = writeFile(t, `{
		// bytes
		"PerClientRateLimitBytesPerSec": 1000,
		"PerClientRateBurstBytes": 2000,
	}`)
	c.Duplicates, c.DebugAllow = DisableFighters, []string{"192.0.2.7", "2001:db8::/32"}
	public := key.NewNode().Public()
	c.LogDrops = []string{public.String(), public.Hex()}
	p, err := check(c)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.logDrops, []key.NodePublic{public, public}) {
		t.Errorf("keys %v", p.logDrops)
	}
	if want := []meshPeer{{"derp1.example.org", ""}, {"derp2.example.org", "10.0.0.2"}, {"derp3.example.org:8443", ""}}; !slices.Equal(p.peers, want) {
		t.Errorf("mesh peers %v", p.peers)
	}
	if p.rate != (relay.RateLimit{BytesPerSecond: 1000, Burst: 2000}) || p.duplicates != relay.DisableFighters || p.meshKey.IsZero() || len(p.allow) != 2 {
		t.Errorf("plan %+v", p)
	}
	if _, err := os.Stat(c.KeyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Error("check has made the key file")
	}
}

// --dev changes what nothing was said about (derp.md section 14.1).
func TestDev(t *testing.T) {
	c := DefaultConfig()
	c.Dev = true
	p, err := check(c)
	if err != nil {
		t.Fatal(err)
	}
	if p.Addr != ":3340" || p.tls() || p.DebugAddr != "" || p.KeyFile != "" || p.newKey || p.httpAddr != "" {
		t.Errorf("plan %+v", p.Config)
	}
	c.Addr, c.DebugAddr = "127.0.0.1:1", "127.0.0.1:2"
	if p, err = check(c); err != nil || p.Addr != "127.0.0.1:1" || p.DebugAddr != "127.0.0.1:2" {
		t.Errorf("plan %+v, %v", p.Config, err)
	}
}

// A rate of 0 is no limit, whatever the burst (DERP-64).
func TestNoRate(t *testing.T) {
	got, err := readRateConfig(writeFile(t, `{"PerClientRateLimitBytesPerSec": 0, "PerClientRateBurstBytes": 5}`))
	if err != nil || got != (relay.RateLimit{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A configuration file has comments and the flags' names; what it does not say
// stays, and what it says wrongly is an error.
func TestReadConfig(t *testing.T) {
	c := DefaultConfig()
	if err := ReadConfig(writeFile(t, `{
		// the relay of Berlin
		"hostname": "derp1.example.org",
		"mesh-with": ["a.example.org", "b.example.org",],
		"drain": "1m", "stun": false, "accept-connection-limit": 0.5, "log-level": "debug",
	}`), &c); err != nil {
		t.Fatal(err)
	}
	if c.Hostname != "derp1.example.org" || len(c.MeshWith) != 2 || c.Drain != Duration(time.Minute) || c.STUN ||
		c.AcceptLimit != 0.5 || c.LogLevel >= 0 || c.Addr != ":443" || !c.DERP {
		t.Errorf("got %+v", c)
	}
	for text, want := range map[string]string{
		`{"hostnam": "x"}`:    "hostnam",
		`{"drain": 5}`:        "drain",
		`{"drain": "5"}`:      "unit",
		`{"stun": "yes"}`:     "stun",
		`{"hostname": "x"} 1`: "file",
		`{`:                   "file",
		`{"Logger": {}}`:      "Logger",
	} {
		name := writeFile(t, text)
		if err := ReadConfig(name, &c); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzReadConfig: no file makes the parser fall over, and what it takes can be
// checked.
func FuzzReadConfig(f *testing.F) {
	for _, seed := range []string{`{}`, `{"addr": ":443", /* x */ "mesh-with": ["a/b"],}`, `{"drain": "5s"}`, `{"log-level": "warn"}`, `[`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := DefaultConfig()
		if parseHuJSON(b, &c) == nil {
			c.PSKFile, c.MeshCA, c.RateConfig, c.KeyFile = "", "", "", t.TempDir()+"/key" // no file of the machine
			c.ACMEEABKey = ""
			check(c)
		}
	})
}

// A key file that others can read is used, with a warning: a derper's may be
// so.
func TestKeyFileWarning(t *testing.T) {
	c := testConfig(t)
	r := run(t, c)
	public := r.relay.PublicKey()
	r.stop()
	if err := os.Chmod(c.KeyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	again := run(t, c)
	if again.relay.PublicKey() != public || !strings.Contains(again.log.String(), "make it 0600") {
		t.Errorf("log:\n%s", again.log)
	}
}
