package derp

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
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
func tlsConfig(n *netmap.DERPNode, roots *x509.CertPool) *tls.Config {
	cfg := &tls.Config{
		ServerName:                  n.HostName, // no SNI for an IP literal, whose SAN is checked
		RootCAs:                     roots,
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true,
	}
	switch pin, pinned := strings.CutPrefix(n.CertName, pinPrefix); {
	case pinned:
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return verifyPin(cs, n.HostName, pin) }
	case n.CertName != "" && n.CertName != n.HostName:
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return verifyName(cs, n.CertName, roots) }
	case n.InsecureForTests:
		cfg.InsecureSkipVerify = true
	}
	return cfg
}

// verifyName checks the chain for a name other than the one in the SNI.
func verifyName(cs tls.ConnectionState, name string, roots *x509.CertPool) error {
	opts := x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(opts)
	return err
}

// verifyPin checks that the one certificate presented, a MetaCert aside, is
// the pinned one, valid now and made for the host. There is no chain.
func verifyPin(cs tls.ConnectionState, hostName, pin string) error {
	var leaf *x509.Certificate
	for _, c := range cs.PeerCertificates {
		if strings.HasPrefix(c.Subject.CommonName, MetaCertPrefix) {
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
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w (is the connection intercepted, or is the relay's certificate self-signed?)", err)
	}
	return err
}
