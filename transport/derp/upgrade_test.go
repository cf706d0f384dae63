package derp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// TestResponseBound: an HTTP answer without an end is not read for ever.
func TestResponseBound(t *testing.T) {
	r := &endless{head: "HTTP/1.1 101 Switching Protocols\r\nX: "}
	if _, err := readUpgrade(r); err == nil || r.given > maxResponse {
		t.Errorf("upgrade: %v after %d bytes", err, r.given)
	}
	r = &endless{head: "HTTP/1.1 200 OK\r\nX: "}
	if err := readTunnel(r, "r.test:443"); err == nil || r.given > maxResponse {
		t.Errorf("CONNECT: %v after %d bytes", err, r.given)
	}
}

// An endless reader gives head and then the same letter.
type endless struct {
	head  string
	given int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.head)
	e.head = e.head[n:]
	for i := n; i < len(p); i++ {
		p[i] = 'x'
	}
	e.given += len(p)
	return len(p), nil
}

// FuzzUpgrade: any answer of a relay or a proxy is taken or refused; what came
// behind an answer that is taken is not lost.
func FuzzUpgrade(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n\x01\x00\x00\x00\x28DERP",
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\nderp server disabled", "HTTP/1.1 101\r\n\r\n", "SSH-2.0\r\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pending, err := readUpgrade(bytes.NewReader(b))
		if err == nil && !bytes.Contains(b, pending) {
			t.Errorf("%q came behind %q", pending, b)
		}
		readTunnel(bytes.NewReader(b), "r.test:443")
	})
}

// metaCert returns a certificate like a relay's, with any name and serial.
func metaCert(tb testing.TB, name string, serial int64) []byte {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// FuzzMetaCert: no certificate that parses upsets the reader, and a key that it
// tells is the one in the name (DERP-108).
func FuzzMetaCert(f *testing.F) {
	hex := key.NewNode().Public().Hex()
	f.Add(metaCert(f, MetaCertPrefix+hex, 2))
	f.Add(metaCert(f, MetaCertPrefix+hex, 3))
	f.Add(metaCert(f, MetaCertPrefix+hex[1:], 2))
	f.Add(metaCert(f, "relay.test", 2))
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		k := metaCertKey(tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{c}})
		if name := strings.ToLower(c.Subject.CommonName); !k.IsZero() && name != MetaCertPrefix+k.Hex() {
			t.Errorf("key %s of the name %q", k.Hex(), name)
		}
		if k := metaCertKey(tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: []*x509.Certificate{c}}); !k.IsZero() {
			t.Errorf("key %v by TLS 1.2", k)
		}
	})
}
