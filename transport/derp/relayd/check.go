package relayd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// A ConfigError is a setting that cannot be used. It names the setting as its
// flag does.
type ConfigError struct {
	Setting string // without dashes
	Err     error
}

// Error names the setting.
func (e *ConfigError) Error() string { return fmt.Sprintf("--%s: %v", e.Setting, e.Err) }

// Unwrap returns what is wrong with it.
func (e *ConfigError) Unwrap() error { return e.Err }

// A plan is a Config that has been checked and read: all that can be known to
// be wrong before anything is opened is found while it is made.
type plan struct {
	Config
	log *slog.Logger

	listen     netip.AddrPort // of Addr; an unspecified address = all
	httpAddr   string         // empty = none
	private    key.NodePrivate
	newKey     bool // private is to be written to KeyFile
	meshKey    key.Mesh
	peers      []meshPeer
	roots      *x509.CertPool // of mesh peers; nil = the system's
	duplicates relay.DuplicatePolicy
	rate       relay.RateLimit
	allow      []netip.Prefix // may use /debug/ beside loopback
	eabKey     string
	logDrops   []key.NodePublic
}

// A meshPeer is another relay of the region.
type meshPeer struct {
	host string // whose certificate it shows
	dial string // host or address to dial; empty = host
}

// A checker collects what is wrong with a Config.
type checker struct {
	*plan
	errs []error
}

// check returns what to do, or everything that is wrong. Nothing has been
// opened or made when it returns.
func check(c Config) (*plan, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dev {
		c = c.forDevelopment()
	}
	k := checker{plan: &plan{Config: c, log: c.Logger}}
	k.sockets()
	k.debug()
	k.certificates()
	k.mesh()
	k.admission()
	k.limits()
	k.pages()
	k.logs()
	if len(k.errs) == 0 { // the last, since a missing key is made
		k.key()
	}
	return k.plan, errors.Join(k.errs...)
}

// forDevelopment returns c with what Dev means where nothing else is said.
func (c Config) forDevelopment() Config {
	d := DefaultConfig()
	if c.Addr == d.Addr {
		c.Addr = devAddr
	}
	if c.CertMode == d.CertMode {
		c.CertMode = CertNone
	}
	if c.DebugAddr == d.DebugAddr {
		c.DebugAddr = ""
	}
	if c.KeyFile == d.KeyFile {
		c.KeyFile = ""
	}
	return c
}

// wrong notes that a setting cannot be used.
func (k *checker) wrong(setting, format string, args ...any) {
	k.errs = append(k.errs, &ConfigError{setting, fmt.Errorf(format, args...)})
}

func (k *checker) sockets() {
	var err error
	if k.listen, err = parseListen(k.Addr); err != nil {
		k.wrong("addr", "%w", err)
	}
	if k.HTTPPort != -1 && (k.HTTPPort < 0 || k.HTTPPort > math.MaxUint16) {
		k.wrong("http-port", "%d: want a TCP port, or -1 for none", k.HTTPPort)
	}
	if k.tls() && k.HTTPPort >= 0 {
		k.httpAddr = joinListen(k.listen.Addr(), uint16(k.HTTPPort))
	}
	if k.STUNPort < 0 || k.STUNPort > math.MaxUint16 {
		k.wrong("stun-port", "%d: want a UDP port, or --stun=false for no STUN server", k.STUNPort)
	}
	for setting, d := range map[string]Duration{
		"tcp-user-timeout": k.UserTimeout, "tcp-write-timeout": k.WriteTimeout, "drain": k.Drain,
	} {
		if d < 0 {
			k.wrong(setting, "%v: want a duration such as 5s", d)
		}
	}
}

func (k *checker) debug() {
	for _, text := range k.DebugAllow {
		p, err := parsePrefix(text)
		if err != nil {
			k.wrong("debug-allow", "%w", err)
			continue
		}
		k.allow = append(k.allow, p)
	}
	if k.MetricsAddr != "" {
		if _, err := parseListen(k.MetricsAddr); err != nil {
			k.wrong("metrics-addr", "%w", err)
		}
	}
	if k.DebugAddr == "" {
		return
	}
	at, err := parseListen(k.DebugAddr)
	switch {
	case err != nil:
		k.wrong("debug-addr", "%w", err)
	case !at.Addr().IsLoopback() && len(k.DebugAllow) == 0:
		k.wrong("debug-addr", "%s is not a loopback address: say with --debug-allow who may use it, as in --debug-allow 192.0.2.0/24", k.DebugAddr)
	}
}

// tls reports whether the relay itself speaks TLS.
func (p *plan) tls() bool { return p.CertMode != CertNone }

func (k *checker) certificates() {
	modes := []string{CertManual, CertLetsEncrypt, CertGCP, CertNone}
	acme := k.CertMode == CertLetsEncrypt || k.CertMode == CertGCP
	ip := isIP(k.Hostname)
	switch {
	case !slices.Contains(modes, k.CertMode):
		k.wrong("certmode", "%q: want one of %s", k.CertMode, strings.Join(modes, ", "))
	case k.ACMEIPCerts && k.CertMode != CertLetsEncrypt:
		k.wrong("acme-ip-certs", "only --certmode %s issues certificates for IP addresses, this is %s", CertLetsEncrypt, k.CertMode)
	case k.CertMode == CertNone:
		return
	case k.Hostname == "" && !k.ACMEIPCerts:
		k.wrong("hostname", "it is empty: give the name or IP address that clients dial, or --certmode none behind a proxy that speaks TLS")
	case acme && ip && !k.ACMEIPCerts:
		k.wrong("hostname", "%s is an IP address: use --certmode %s, or --acme-ip-certs", k.Hostname, CertManual)
	case k.CertDir == "":
		k.wrong("certdir", "it is empty: give the folder of the certificates")
	}
	if !ip && k.Hostname != "" && !isHostName(k.Hostname) {
		k.wrong("hostname", "%q is neither a DNS name nor an IP address", k.Hostname)
	}
	k.accountKey()
}

// accountKey reads the key that binds the ACME account to another one.
func (k *checker) accountKey() {
	if k.CertMode == CertGCP && (k.ACMEEABKid == "" || k.ACMEEABKey == "" || k.ACMEEmail == "") {
		k.wrong("certmode", "%s needs --acme-eab-kid, --acme-eab-key and --acme-email", CertGCP)
	}
	k.eabKey = k.ACMEEABKey
	if file, ok := strings.CutPrefix(k.ACMEEABKey, "file:"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			k.wrong("acme-eab-key", "%w", err)
		}
		k.eabKey = strings.TrimSpace(string(b))
	}
}

func (k *checker) mesh() {
	var err error
	switch {
	case k.PSKFile != "":
		if k.meshKey, err = ReadMeshKey(k.PSKFile); err != nil {
			k.wrong("mesh-psk-file", "%w", err)
		}
	case len(k.MeshWith) > 0:
		k.wrong("mesh-with", "the relays of a region need the same mesh key: give it with --mesh-psk-file")
	}
	for _, text := range k.MeshWith {
		peer, err := parseMeshPeer(text)
		if err != nil {
			k.wrong("mesh-with", "%w", err)
		}
		k.peers = append(k.peers, peer)
	}
	if k.MeshCA != "" {
		if k.roots, err = ReadRoots(k.MeshCA); err != nil {
			k.wrong("mesh-ca", "%w", err)
		}
	}
}

func (k *checker) admission() {
	if k.Socket != "" && !k.VerifyClients {
		k.wrong("socket", "it is used with --verify-clients only: give that, too")
	}
	if k.VerifyURL == "" {
		return
	}
	if _, err := parseWebURL(k.VerifyURL); err != nil {
		k.wrong("verify-client-url", "%w", err)
	}
}

func (k *checker) limits() {
	switch {
	case k.AcceptLimit < 0 || math.IsNaN(k.AcceptLimit) || math.IsInf(k.AcceptLimit, 0):
		k.wrong("accept-connection-limit", "%v: want connections per second, or 0 for no limit", k.AcceptLimit)
	case k.AcceptBurst < 0:
		k.wrong("accept-connection-burst", "%d: want a number of connections", k.AcceptBurst)
	case k.AcceptLimit > 0 && k.AcceptBurst == 0:
		k.wrong("accept-connection-burst", "a burst of 0 would admit nobody: give how many connections may come at once")
	}
	switch k.Duplicates {
	case LastWriter:
		k.duplicates = relay.LastWriterIsActive
	case DisableFighters:
		k.duplicates = relay.DisableFighters
	default:
		k.wrong("duplicates", "%q: want %s or %s", k.Duplicates, LastWriter, DisableFighters)
	}
	if k.RateConfig == "" {
		return
	}
	var err error
	if k.rate, err = readRateConfig(k.RateConfig); err != nil {
		k.wrong("rate-config", "%w", err)
	}
}

func (k *checker) pages() {
	if k.Home != "" && k.Home != blankHome {
		if _, err := parseWebURL(k.Home); err != nil {
			k.wrong("home", "%w; or %q for a blank page", err, blankHome)
		}
	}
}

func (k *checker) logs() {
	for _, text := range k.LogDrops {
		public, err := key.ParseNodePublic(text)
		if err != nil { // the reference's switch takes them without a prefix
			public, err = key.ParseNodePublicHex(text)
		}
		if err != nil {
			k.wrong("log-drops", "%q: want a node key, as in nodekey:…", text)
		}
		k.logDrops = append(k.logDrops, public)
	}
}

// key reads the private key, or makes one that is written once the relay
// listens.
func (k *checker) key() {
	switch {
	case k.KeyFile == "" && k.Dev:
		k.private = key.NewNode()
		return
	case k.KeyFile == "":
		k.wrong("key-file", "it is empty: give the file that keeps the relay's key, which is made on first start")
		return
	}
	private, found, warning, err := readKeyFile(k.KeyFile)
	switch {
	case err != nil:
		k.wrong("key-file", "%w", err)
	case !found:
		k.private, k.newKey = key.NewNode(), true
	default:
		k.private = private
	}
	if warning != "" {
		k.log.Warn(warning)
	}
}
