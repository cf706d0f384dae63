package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sort"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// Times of a connection attempt (control.md sections 3.2 and 14.1).
const (
	tlsAfter     = 500 * time.Millisecond // head start of the plaintext leg
	tlsOnlyAfter = 2 * time.Minute        // a dial so soon after another skips plaintext, or tries it last

	dialTimeout    = 10 * time.Second // TCP to the end of the handshake, without a dial plan
	dialTimeoutMin = 5 * time.Second
	dialTimeoutMax = 60 * time.Second

	maxCandidates = 64 // of a dial plan; control.md section 15, rule 2
)

// A dialer makes Noise connections to one control server. Only link calls it,
// one call at a time.
type dialer struct {
	url     *url.URL
	network host.Network
	resolve func(context.Context, string) ([]netip.Addr, error)
	proxy   func(*http.Request) (*url.URL, error)
	roots   *x509.CertPool
	headers http.Header // of every request
	machine key.MachinePrivate
	log     *slog.Logger
	plan    actor.Cell[*DialPlan] // by stream; kept across reconnects

	lastDial time.Time // when the last dial started; zero: never
}

func newDialer(cfg *Config, u *url.URL) *dialer {
	return &dialer{
		url: u, network: cfg.Network, resolve: cfg.Resolve, proxy: cfg.Proxy, roots: cfg.Roots,
		headers: cfg.Headers, machine: cfg.Machine, log: cfg.Logger,
	}
}

// dial connects to the server whose Noise key is known: by the dial plan if
// there is one, else or if all its candidates fail by DNS (CTL-10).
func (d *dialer) dial(ctx context.Context, server key.MachinePublic) (*Conn, error) {
	candidates := d.candidates()
	ctx, cancel := context.WithTimeout(ctx, dialDeadline(candidates))
	defer cancel()
	tlsOnly := !d.lastDial.IsZero() && time.Since(d.lastDial) < tlsOnlyAfter
	d.lastDial = time.Now()
	if len(candidates) > 0 {
		legs := make([]leg, len(candidates))
		for i, c := range candidates {
			legs[i] = leg{seconds(c.DialStartDelaySec), func(ctx context.Context) (*Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, seconds(c.DialTimeoutSec))
				defer cancel()
				return race(ctx, d.legs(server, c.IP, tlsOnly))
			}}
		}
		conn, err := race(ctx, legs)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		d.log.Debug("no address of the control server's dial plan answers", "err", err)
	}
	return race(ctx, d.legs(server, netip.Addr{}, tlsOnly))
}

// candidates returns the usable part of the dial plan in order of their start.
func (d *dialer) candidates() []DialCandidate {
	plan := d.plan.Get()
	if plan == nil {
		return nil
	}
	var usable []DialCandidate
	for _, c := range plan.Candidates[:min(len(plan.Candidates), maxCandidates)] {
		if c.ACEHost == "" && c.IP.IsValid() && c.DialTimeoutSec > 0 {
			usable = append(usable, c)
		}
	}
	sort.SliceStable(usable, func(i, j int) bool {
		return seconds(usable[i].DialStartDelaySec) < seconds(usable[j].DialStartDelaySec)
	})
	return usable
}

// dialDeadline is the formula at the end of control.md section 3.2 (CTL-08).
func dialDeadline(candidates []DialCandidate) time.Duration {
	if len(candidates) == 0 {
		return dialTimeout
	}
	longest := dialTimeoutMin
	for _, c := range candidates {
		longest = max(longest, seconds(c.DialStartDelaySec)+seconds(c.DialTimeoutSec))
	}
	return min(longest+5*time.Second, dialTimeoutMax)
}

// seconds converts a number sent by a server to at most a minute (control.md
// section 15, rule 2).
func seconds(s float64) time.Duration {
	if math.IsNaN(s) {
		return 0
	}
	return time.Duration(min(max(s, 0), dialTimeoutMax.Seconds()) * float64(time.Second))
}

// legs returns the ways to one address, or to what DNS says if it is invalid.
func (d *dialer) legs(server key.MachinePublic, at netip.Addr, tlsOnly bool) []leg {
	plain, secure := upgradeURLs(d.url)
	to := func(u *url.URL) func(context.Context) (*Conn, error) {
		return func(ctx context.Context) (*Conn, error) {
			h, err := StartHandshake(d.machine, server, CapabilityVersion) // anew for each attempt (CTL-15)
			if err != nil {
				return nil, err
			}
			conn, err := d.upgrade(ctx, u, at, h)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
			}
			return conn, nil
		}
	}
	switch {
	case secure == nil:
		return []leg{{dial: to(plain)}}
	case tlsOnly && d.url.Scheme == "http":
		// Plaintext was asked for, and there may be no TLS: it comes second.
		return []leg{{dial: to(secure)}, {after: tlsAfter, dial: to(plain)}}
	case plain == nil || tlsOnly:
		return []leg{{dial: to(secure)}}
	}
	return []leg{{dial: to(plain)}, {after: tlsAfter, dial: to(secure)}}
}

// upgradeURLs is the table of control.md section 3.2: where plaintext and TLS
// are tried; nil means not at all.
func upgradeURLs(control *url.URL) (plain, secure *url.URL) {
	at := func(scheme, port string) *url.URL {
		u := *control
		u.Scheme = scheme
		u.Host = control.Hostname()
		if addr, err := netip.ParseAddr(u.Host); err == nil && addr.Is6() {
			u.Host = "[" + u.Host + "]"
		}
		if port != "" && port != defaultPort(scheme) {
			u.Host = net.JoinHostPort(control.Hostname(), port)
		}
		return u.JoinPath(PathUpgrade)
	}
	port := control.Port()
	switch {
	case control.Scheme == "http" && isPrivate(control.Hostname()):
		return at("http", port), nil
	case control.Scheme == "http":
		return at("http", port), at("https", "")
	case port == "" || port == "443":
		return at("http", ""), at("https", "")
	}
	return nil, at("https", port) // plaintext at another port would be a guess
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

// isPrivate reports whether a host name is this machine or a literal private
// address.
func isPrivate(hostname string) bool {
	a, err := netip.ParseAddr(hostname)
	return hostname == "localhost" || err == nil && (a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast())
}

// transport returns a net/http transport for HTTP/1.1 and, if asked for,
// HTTP/2, through the network and the proxy (CTL-09). It holds no connection
// after closeIdle.
func (d *dialer) transport(cfg *tls.Config, at netip.Addr, http2 bool) *http.Transport {
	t := &http.Transport{
		Proxy:                  d.proxy,
		TLSClientConfig:        cfg,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
		Protocols:              new(http.Protocols),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.connect(ctx, network, redirect(address, at))
		},
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(http2)
	return t
}

// connect opens a TCP connection. What the host's resolver does not know of the
// server is asked elsewhere, if there is an elsewhere.
func (d *dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.network.Dial(ctx, network, address)
	_, unresolved := errors.AsType[*net.DNSError](err)
	if !unresolved || d.resolve == nil || ctx.Err() != nil {
		return conn, err
	}
	if name, _, splitErr := net.SplitHostPort(address); splitErr != nil || name != d.url.Hostname() {
		return nil, err // of a proxy
	}
	addrs, resolveErr := d.resolve(ctx, d.url.Hostname())
	if resolveErr != nil {
		return nil, fmt.Errorf("%w; %w", err, resolveErr)
	}
	for _, a := range addrs {
		if conn, err = d.network.Dial(ctx, network, redirect(address, a)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// redirect replaces the host of an address, unless at is invalid.
func redirect(address string, at netip.Addr) string {
	if _, port, err := net.SplitHostPort(address); err == nil && at.IsValid() {
		return net.JoinHostPort(at.String(), port)
	}
	return address
}

// tlsConfig returns how certificates are checked where TLS is what proves the
// server.
func (d *dialer) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS12}
}

// unprovenTLS is for the upgrade, where Noise proves the server: a certificate
// that does not verify is logged only (CTL-11).
func (d *dialer) unprovenTLS() *tls.Config {
	cfg := d.tlsConfig()
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		opts := x509.VerifyOptions{DNSName: d.url.Hostname(), Roots: d.roots, Intermediates: x509.NewCertPool()}
		for _, c := range cs.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := cs.PeerCertificates[0].Verify(opts); err != nil {
			d.log.Warn("TLS of the control connection is intercepted; Noise inside it is not", "err", err)
		}
		return nil
	}
	return cfg
}
