package derp

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"testing"
)

// TestBuiltInRoots: DERP-127: the roots are the ones that Let's Encrypt
// publishes, and are taken.
func TestBuiltInRoots(t *testing.T) {
	for name, tt := range map[string]struct {
		text []byte
		sum  string // https://letsencrypt.org/certificates/
	}{
		"ISRG Root X1": {[]byte(isrgRootX1), "96bcec06264976f37460779acf28c5a7cfe8a3c0aae11a8ffcee05c0bddf08c6"},
		"ISRG Root X2": {[]byte(isrgRootX2), "69729b8e15a86efc177a57afb7171dfc64add28c2fca8cf1507e34453ccb1470"},
	} {
		block, _ := pem.Decode(tt.text)
		if block == nil {
			t.Fatalf("%s is not PEM", name)
		}
		sum := sha256.Sum256(block.Bytes)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || hex.EncodeToString(sum[:]) != tt.sum || c.Subject.CommonName != name {
			t.Errorf("%s is %v with SHA-256 %x, %v", name, c.Subject, sum, err)
			continue
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: letsEncrypt(), CurrentTime: c.NotBefore}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
