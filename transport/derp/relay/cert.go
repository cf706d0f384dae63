package relay

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// metaCertDays is how long before and after its making a MetaCert claims to be
// valid (DERP-106). Nobody checks it but operating systems' TLS stacks.
const metaCertDays = 30

// newMetaCert makes the certificate that tells the relay's key inside the TLS
// handshake, so that a client can log in one round trip earlier (DERP-106).
func newMetaCert(public key.NodePublic, now time.Time) []byte {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(derp.ProtocolVersion),
		Subject:               pkix.Name{CommonName: derp.MetaCertPrefix + public.Hex()},
		NotBefore:             now.AddDate(0, 0, -metaCertDays), // Windows wants dates
		NotAfter:              now.AddDate(0, 0, metaCertDays),
		BasicConstraintsValid: true, // macOS wants it
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err == nil {
		var der []byte
		if der, err = x509.CreateCertificate(rand.Reader, template, template, pub, priv); err == nil {
			return der
		}
	}
	panic(fmt.Sprintf("relay: make MetaCert: %v", err)) // the template is constant
}

// MetaCert returns the certificate, in DER, that tells clients the relay's key.
func (s *Server) MetaCert() []byte { return slices.Clone(s.metaCert) }

// AddMetaCert makes cfg present the MetaCert behind each certificate that
// cfg.GetCertificate returns, on a copy (DERP-107). It panics if cfg has no
// GetCertificate.
func (s *Server) AddMetaCert(cfg *tls.Config) {
	get := cfg.GetCertificate
	if get == nil {
		panic("relay: AddMetaCert needs a tls.Config with GetCertificate")
	}
	cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(hello)
		if cert == nil || err != nil {
			return cert, err
		}
		with := *cert
		with.Certificate = append(slices.Clone(cert.Certificate), s.metaCert)
		return &with, nil
	}
}

// TLSConfig returns the settings of a listener for the relay: its certificate
// with the MetaCert, HTTP/1.1 only, full-sized records.
func (s *Server) TLSConfig(cert tls.Certificate) *tls.Config {
	cfg := &tls.Config{
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"http/1.1"},
		DynamicRecordSizingDisabled: true,
	}
	s.AddMetaCert(cfg)
	return cfg
}

// SelfSigned makes a certificate for host names and IP addresses that is valid
// for a year. Clients trust it through derp.PinCertName in the DERP map.
func SelfSigned(hosts ...string) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, errors.New("relay: a certificate needs a host name or IP address")
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("relay: make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("relay: make serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: hosts[0]},
		NotBefore:             now.Add(-time.Hour), // for clocks that are behind
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("relay: make certificate for %v: %w", hosts, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, nil
}
