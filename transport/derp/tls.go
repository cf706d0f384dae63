package derp

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// MetaCertPrefix begins the common name of the certificate by which a relay
// tells its key inside the TLS handshake (DERP-106).
const MetaCertPrefix = "derpkey"

// pinPrefix begins a CertName that is the SHA-256 of the relay's certificate.
const pinPrefix = "sha256-raw:"

// PinCertName returns the CertName that pins a certificate, given in DER.
func PinCertName(der []byte) string {
	sum := sha256.Sum256(der)
	return pinPrefix + hex.EncodeToString(sum[:])
}

// tlsConfig returns how a node's certificate is to be checked (DERP-127,
// DERP-128). Records are full-sized from the start: the default begins with
// small ones to please browsers, at a system call each.
func (d *Dialer) tlsConfig(n *netmap.DERPNode) *tls.Config {
	cfg := new(tls.Config)
	if d.TLS != nil {
		cfg = d.TLS.Clone()
	}
	cfg.ServerName = n.HostName // no SNI for an IP literal, whose SAN is checked
	cfg.NextProtos = nil        // HTTP/2 cannot be upgraded (DERP-96)
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	cfg.DynamicRecordSizingDisabled = true
	verify, also := d.verifier(n), cfg.VerifyConnection
	cfg.InsecureSkipVerify = true // instead of which VerifyConnection takes any of several roots
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil || also == nil {
			return err
		}
		return also(cs)
	}
	return cfg
}

// verifier returns the check of a node's certificate.
func (d *Dialer) verifier(n *netmap.DERPNode) func(tls.ConnectionState) error {
	pin, pinned := strings.CutPrefix(n.CertName, pinPrefix)
	plain := n.CertName == "" || n.CertName == n.HostName
	insecure := n.InsecureForTests || d.TLS != nil && d.TLS.InsecureSkipVerify
	switch {
	case pinned:
		return func(cs tls.ConnectionState) error { return verifyPin(cs, n.HostName, pin) }
	case plain && insecure:
		return func(tls.ConnectionState) error { return nil }
	case plain:
		return func(cs tls.ConnectionState) error { return d.verifyChain(cs, n.HostName) }
	}
	return func(cs tls.ConnectionState) error { return d.verifyChain(cs, n.CertName) }
}

// verifyChain checks that the certificate is for name and that the system's
// roots, the configured ones or Let's Encrypt's vouch for it, whichever does.
func (d *Dialer) verifyChain(cs tls.ConnectionState, name string) error {
	opts := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		if !isMetaCert(c) {
			opts.Intermediates.AddCert(c)
		}
	}
	_, err := cs.PeerCertificates[0].Verify(opts) // no Roots: the system's
	for _, roots := range d.extraRoots() {
		if err == nil {
			break
		}
		opts.Roots = roots
		_, err = cs.PeerCertificates[0].Verify(opts)
	}
	return err
}

// extraRoots returns who may sign besides the system's roots.
func (d *Dialer) extraRoots() []*x509.CertPool {
	var pools []*x509.CertPool
	if d.Roots != nil {
		pools = append(pools, d.Roots)
	}
	if d.TLS != nil && d.TLS.RootCAs != nil {
		pools = append(pools, d.TLS.RootCAs)
	}
	return append(pools, letsEncrypt())
}

// isMetaCert reports whether a certificate is there to tell a relay's key.
func isMetaCert(c *x509.Certificate) bool {
	return strings.HasPrefix(c.Subject.CommonName, MetaCertPrefix)
}

// verifyPin checks that the one certificate presented, a MetaCert aside, is
// the pinned one, valid now and made for the name in the SNI, which an IP
// literal does not have. There is no chain.
func verifyPin(cs tls.ConnectionState, hostName, pin string) error {
	var leaf *x509.Certificate
	for _, c := range cs.PeerCertificates {
		if isMetaCert(c) {
			continue
		}
		if leaf != nil {
			return errors.New("more than one certificate where the DERP map pins one")
		}
		leaf = c
	}
	if leaf == nil {
		return errors.New("no certificate where the DERP map pins one")
	}
	if got := strings.TrimPrefix(PinCertName(leaf.Raw), pinPrefix); got != pin {
		return fmt.Errorf("certificate has SHA-256 %s, but the DERP map pins %s", got, pin)
	}
	if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("pinned certificate is valid from %v to %v only", leaf.NotBefore, leaf.NotAfter)
	}
	if net.ParseIP(hostName) != nil {
		return nil
	}
	return leaf.VerifyHostname(hostName)
}

// metaCertKey returns the relay's key if the TLS handshake told it in a version
// of the protocol that we speak. The certificate proves nothing by itself: its
// authority is that of the handshake, whose messages TLS 1.3 protects
// (DERP-108).
func metaCertKey(cs tls.ConnectionState) key.NodePublic {
	if cs.Version < tls.VersionTLS13 {
		return key.NodePublic{}
	}
	for _, c := range cs.PeerCertificates {
		digits, ok := strings.CutPrefix(c.Subject.CommonName, MetaCertPrefix)
		if !ok || !c.SerialNumber.IsUint64() || c.SerialNumber.Uint64() != ProtocolVersion {
			continue
		}
		if k, err := key.ParseNodePublicHex(digits); err == nil {
			return k
		}
	}
	return key.NodePublic{}
}

// explainTLS adds what to look for when a certificate is not trusted.
func explainTLS(err error) error {
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return fmt.Errorf("%w (is the connection intercepted, or is the relay's certificate self-signed?)", err)
	}
	return err
}
