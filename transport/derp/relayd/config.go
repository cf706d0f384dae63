package relayd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tailscale/hujson"

	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/stun"
)

// A Config is what an operator says about a relay. Its names in a configuration
// file are those of the command's flags. Start with [DefaultConfig]: a zero
// field means what it says, not its default.
type Config struct {
	Sockets
	Certificates
	Mesh
	Admission
	Limits
	Pages
	Logs

	// KeyFile keeps the relay's private key; made on first start (DERP-14.1).
	// Empty with Dev: a new key on every start.
	KeyFile string `json:"key-file"`
	// Dev is for a relay on a developer's machine: port 3340, plain HTTP, no
	// debug server, a new key on every start, where nothing else is said.
	Dev bool `json:"dev"`
	// Drain is how long clients may take to hear that the relay stops.
	Drain Duration `json:"drain"`
	// Logger receives what an operator acts on; nil discards.
	Logger *slog.Logger `json:"-"`
}

// Sockets are what a relay listens to.
type Sockets struct {
	Addr         string   `json:"addr"`         // of HTTPS, or of HTTP with CertMode none
	HTTPPort     int      `json:"http-port"`    // of the captive-portal check and ACME, beside HTTPS; -1 = none
	DERP         bool     `json:"derp"`         // false: everything else, for a host that only answers STUN
	STUN         bool     `json:"stun"`         // on the IP address of Addr
	STUNPort     int      `json:"stun-port"`    // UDP
	DebugAddr    string   `json:"debug-addr"`   // of /debug/ and /metrics; empty = none
	DebugAllow   []string `json:"debug-allow"`  // addresses and networks that may use it beside loopback
	MetricsAddr  string   `json:"metrics-addr"` // of /metrics alone, for all who reach it; empty = none
	KeepAlive    Duration `json:"tcp-keepalive-time"`
	UserTimeout  Duration `json:"tcp-user-timeout"`
	WriteTimeout Duration `json:"tcp-write-timeout"` // one write to one client (DERP-61)
}

// Certificates say how the relay proves its name (DERP-154..156).
type Certificates struct {
	Hostname    string `json:"hostname"` // DNS name or IP address that clients dial
	CertMode    string `json:"certmode"` // manual, letsencrypt, gcp, none
	CertDir     string `json:"certdir"`
	ACMEEmail   string `json:"acme-email"`
	ACMEEABKid  string `json:"acme-eab-kid"`
	ACMEEABKey  string `json:"acme-eab-key"` // the key, or file:PATH
	ACMEIPCerts bool   `json:"acme-ip-certs"`
}

// Mesh joins the relays of a region (derp.md section 9).
type Mesh struct {
	PSKFile  string   `json:"mesh-psk-file"` // 64 hex digits
	MeshWith []string `json:"mesh-with"`     // host or host/dialhost
	MeshCA   string   `json:"mesh-ca"`       // PEM file: certificates trusted beside the system's
}

// Admission says who may use the relay (DERP-73..75). Every check must pass.
type Admission struct {
	VerifyClients     bool   `json:"verify-clients"` // ask the tailnet node on this machine
	Socket            string `json:"socket"`         // of that node; empty = the platform's default
	VerifyURL         string `json:"verify-client-url"`
	VerifyURLFailOpen bool   `json:"verify-client-url-fail-open"`
}

// Limits bound what clients may take.
type Limits struct {
	AcceptLimit float64 `json:"accept-connection-limit"` // new connections per second; 0 = unlimited
	AcceptBurst int     `json:"accept-connection-burst"` // connections
	RateConfig  string  `json:"rate-config"`             // file with the receive limit per client (DERP-64)
	Advertise   bool    `json:"advertise-rate-limit"`    // tell clients that limit (DERP-68)
	Duplicates  string  `json:"duplicates"`              // last-writer or disable-fighters (DERP-45)
}

// Pages are what the relay answers beside DERP.
type Pages struct {
	Home           string   `json:"home"` // empty = a page about the relay, blank, or a URL to redirect to
	BootstrapDNS   []string `json:"bootstrap-dns-names"`
	UnpublishedDNS []string `json:"unpublished-bootstrap-dns-names"` // name or name/txtname
}

// Logs say what is logged and measured to find a fault (DERP-82).
type Logs struct {
	LogLevel   slog.Level `json:"log-level"`     // debug, info, warn or error
	LogClients bool       `json:"log-clients"`   // clients that come and go, at Info
	LogProbers bool       `json:"log-probers"`   // the same for probers alone
	LogDrops   []string   `json:"log-drops"`     // node keys: packets to them that are dropped
	RTT        bool       `json:"tcp-rtt-stats"` // sample the clients' round trip times (Linux)
}

// Values of Config.CertMode and Config.Duplicates.
const (
	CertManual      = "manual"
	CertLetsEncrypt = "letsencrypt"
	CertGCP         = "gcp"
	CertNone        = "none"

	LastWriter      = "last-writer"
	DisableFighters = "disable-fighters"
)

// Addresses of a relay that is told none.
const (
	defaultAddr      = ":443"
	defaultDebugAddr = "127.0.0.1:3341"
	devAddr          = ":3340" // as the reference's -dev (derp.md section 14.1)
)

// DefaultConfig returns what holds where nothing else is said (derp.md section
// 14.1). Paths depend on whether the process runs as root.
func DefaultConfig() Config {
	c := Config{
		Sockets: Sockets{
			Addr: defaultAddr, HTTPPort: 80, DERP: true, STUN: true, STUNPort: stun.DefaultPort, DebugAddr: defaultDebugAddr,
			KeepAlive: Duration(10 * time.Minute), UserTimeout: Duration(15 * time.Second), // DERP-157
			WriteTimeout: Duration(relay.DefaultWriteTimeout),
		},
		Certificates: Certificates{CertMode: CertLetsEncrypt},
		Admission:    Admission{VerifyURLFailOpen: true},
		Limits:       Limits{Duplicates: LastWriter},
		Logs:         Logs{RTT: true},
		Drain:        Duration(5 * time.Second),
	}
	const home = "/var/lib/tsnode"
	if os.Geteuid() == 0 {
		c.KeyFile, c.CertDir = filepath.Join(home, "relay.key"), filepath.Join(home, "relay-certs")
	} else if cache, err := os.UserCacheDir(); err == nil {
		c.CertDir = filepath.Join(cache, "tsnode", "relay-certs")
	}
	return c
}

// ReadConfig sets in c what a HuJSON file says. A name it does not know is an
// error.
func ReadConfig(file string, c *Config) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := parseHuJSON(b, c); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// parseHuJSON sets in v what b says, and refuses names that v does not have.
func parseHuJSON(b []byte, v any) error {
	b, err := hujson.Standardize(bytes.Clone(b))
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows the object")
	}
	return nil
}

// A Duration is a time.Duration written as in "1m30s".
type Duration time.Duration

// String shows it as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}
