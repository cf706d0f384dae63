package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/host"
)

// The certificate authorities of an ACMEConfig.
const (
	LetsEncrypt = "letsencrypt" // Let's Encrypt, no account needed
	GCP         = "gcp"         // Google Trust Services, bound to an account of Google Cloud
)

// directories are where the authorities' ACME services begin: their own
// documentation, letsencrypt.org/docs and
// cloud.google.com/certificate-manager/docs/public-ca.
var directories = map[string]string{
	LetsEncrypt: "https://acme-v02.api.letsencrypt.org/directory",
	GCP:         "https://dv.acme-v02.api.pki.goog/directory",
}

// An ACMEConfig says whose certificates for what a relay gets (DERP-155,
// DERP-156).
type ACMEConfig struct {
	Authority string // LetsEncrypt or GCP
	Host      string // the relay's name; an IP address if it has none
	Dir       string // where accounts and certificates are kept
	Email     string // told to the authority; GCP needs it

	EABKeyID string // external account binding of GCP; RFC 8555 section 7.3.4
	EABKey   string // its HMAC key in base64

	IPCerts bool // also for the addresses at which clients connect; LetsEncrypt only

	DirectoryURL string       // of another authority that behaves like the named one; empty = its own
	HTTPClient   *http.Client // nil = this host's network
	Logger       *slog.Logger // nil discards
}

// ACME returns a provider that has certificates issued when clients first ask
// for them. It asks nobody before.
func ACME(c ACMEConfig) (Provider, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.HTTPClient == nil {
		c.HTTPClient = &http.Client{Transport: &http.Transport{
			DialContext: host.OS{}.Dial, Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute,
		}}
	}
	var named *hostCert
	if !isIP(c.Host) {
		var err error
		if named, err = newHostCert(c); err != nil {
			return nil, fmt.Errorf("certs: %w", err)
		}
		if !c.IPCerts {
			return named, nil
		}
	}
	p, err := newIPCerts(c, named)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	return p, nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// check refuses what cannot work. The names in it are those of the relay's
// options.
func (c *ACMEConfig) check() error {
	ip := isIP(c.Host)
	switch {
	case directories[c.Authority] == "":
		return fmt.Errorf("certmode %q is no ACME authority: use %s or %s", c.Authority, LetsEncrypt, GCP)
	case c.Dir == "":
		return errors.New("certdir is empty: accounts and certificates must outlive the process")
	case c.IPCerts && c.Authority != LetsEncrypt:
		return fmt.Errorf("acme-ip-certs needs certmode %s: %s issues none for addresses", LetsEncrypt, c.Authority)
	case ip && c.Authority == GCP:
		return fmt.Errorf("hostname %s is an IP address: certmode %s needs a DNS name", c.Host, GCP)
	case ip && !c.IPCerts:
		return fmt.Errorf("hostname %s is an IP address: set acme-ip-certs, or use certmode manual for a self-signed certificate", c.Host)
	case !ip && (!strings.Contains(strings.Trim(c.Host, "."), ".") || fileName(c.Host) != c.Host):
		return fmt.Errorf("hostname %q is no public DNS name (international names in their xn-- form)", c.Host)
	case c.Authority == GCP && (c.EABKeyID == "" || c.EABKey == "" || c.Email == ""):
		return fmt.Errorf("certmode %s needs acme-eab-kid, acme-eab-key and acme-email", GCP)
	}
	return nil
}

// client returns an ACME client without a key.
func (c *ACMEConfig) client() *acme.Client {
	return &acme.Client{
		DirectoryURL: cmp.Or(c.DirectoryURL, directories[c.Authority]),
		HTTPClient:   c.HTTPClient,
		UserAgent:    "tsnode",
	}
}

// binding returns the external account binding, nil for none.
func (c *ACMEConfig) binding() (*acme.ExternalAccountBinding, error) {
	if c.Authority != GCP {
		return nil, nil
	}
	// Standard base64 differs from that of URLs in two digits and the padding.
	digits := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(c.EABKey, "="))
	key, err := base64.RawURLEncoding.DecodeString(digits)
	if err != nil {
		return nil, errors.New("acme-eab-key is neither base64 nor base64url") // it is a secret
	}
	return &acme.ExternalAccountBinding{KID: c.EABKeyID, Key: key}, nil
}

// failureLogs is how often it is logged that there is no certificate: each
// client asks, and the authority is asked again after a minute.
const failureLogs = time.Minute

// A hostCert is the Provider of the certificate for the relay's name.
type hostCert struct {
	m       autocert.Manager
	host    string
	log     *slog.Logger
	failing rate.Sometimes
	current atomic.Pointer[tls.Certificate] // what clients got last
}

func newHostCert(c ACMEConfig) (*hostCert, error) {
	eab, err := c.binding()
	if err != nil {
		return nil, err
	}
	h := &hostCert{host: c.Host, log: c.Logger, failing: rate.Sometimes{First: 1, Interval: failureLogs}}
	h.m = autocert.Manager{
		Prompt:                 autocert.AcceptTOS,
		Cache:                  autocert.DirCache(c.Dir),
		HostPolicy:             autocert.HostWhitelist(c.Host),
		Client:                 c.client(),
		Email:                  c.Email,
		ExternalAccountBinding: eab,
	}
	return h, nil
}

// GetCertificate returns the certificate for the relay's name and no other,
// after it has been issued if that is needed.
func (h *hostCert) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := h.m.GetCertificate(hello)
	if slices.Contains(hello.SupportedProtos, acme.ALPNProto) || !strings.EqualFold(hello.ServerName, h.host) {
		return cert, err // a challenge, or somebody who looks around
	}
	if err == nil {
		h.current.Store(cert)
		return cert, nil
	}
	h.failing.Do(func() {
		h.log.Error("no certificate for the relay's name: clients cannot connect", "host", h.host, "err", err,
			"hint", "the authority must reach this host by its name on TCP 80 or 443")
	})
	return nil, err
}

// HTTPHandler answers HTTP-01 challenges.
func (h *hostCert) HTTPHandler(fallback http.Handler) http.Handler { return h.m.HTTPHandler(fallback) }

// NextProtos offers HTTP/1.1, and TLS-ALPN-01 to the authority (RFC 8737).
func (*hostCert) NextProtos() []string { return []string{http1, acme.ALPNProto} }

// Reload does nothing: no operator replaces these certificates.
func (*hostCert) Reload() error { return nil }

// Serve tells when the certificate is about to expire: those that have been
// asked for renew themselves, and say nothing when they cannot.
func (h *hostCert) Serve(ctx context.Context) error {
	w := expiryWatch{log: h.log, host: h.host, current: h.current.Load, hint: "it could not be renewed: the authority must reach this host by its name on TCP 80 or 443"}
	return w.run(ctx)
}

// String names the actor.
func (*hostCert) String() string { return "certs.hostCert" }
