package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/mesh"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/stun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is a simulated internet with a prober's host and relays.
type world struct {
	t        *testing.T
	internet *simnet.Internet
	here     *simnet.Host // the prober's
	roots    *x509.CertPool
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, internet: simnet.New(1), roots: x509.NewCertPool()}
	t.Cleanup(w.internet.Close)
	w.here = w.internet.AddHost("prober", simnet.HostConfig{})
	return w
}

// config returns a Config for relays of the world.
func (w *world) config(urls ...string) Config {
	return Config{URLs: urls, Network: w.here, Roots: w.roots}
}

// A relayConfig says what is wrong with a relay.
type relayConfig struct {
	options relay.Options
	plain   bool          // no TLS
	expired time.Duration // how long ago the certificate has expired
	noSTUN  bool          // nobody answers
	down    bool          // nobody listens
	handler func(http.Handler) http.Handler
	frames  func(t derp.FrameType, payload []byte) []byte // what becomes of a frame to a client; nil drops it
}

// A site is one relay.
type site struct {
	*relay.Server
	host *simnet.Host
	url  string
}

// addRelay starts a relay at NAME.example.com, which ends with the test.
func (w *world) addRelay(name string, c relayConfig) *site {
	w.t.Helper()
	domain := name + ".example.com"
	st := &site{Server: relay.New(key.NewNode(), c.options), host: w.internet.AddHost(name, simnet.HostConfig{}), url: "https://" + domain}
	w.internet.SetName(domain, st.host.Addrs()...)
	port := ":443"
	if c.plain {
		st.url, port = "http://"+domain, ":80"
	}
	if !c.down {
		w.serveHTTP(st, port, domain, c)
	}
	if !c.noSTUN {
		w.serveSTUN(st)
	}
	return st
}

func (w *world) serveHTTP(st *site, port, domain string, c relayConfig) {
	w.t.Helper()
	ln, err := st.host.Listen(context.Background(), "tcp", port)
	if err != nil {
		w.t.Fatal(err)
	}
	ln = meddlingListener{ln, c.frames}
	if !c.plain {
		ln = tls.NewListener(ln, st.TLSConfig(w.certificate(domain, c.expired)))
	}
	h := st.Handler()
	if c.handler != nil {
		h = c.handler(h)
	}
	server := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)} // the loser of each race of IPv4 and IPv6
	ended := make(chan struct{})
	go func() { defer close(ended); server.Serve(ln) }()
	w.t.Cleanup(func() { server.Close(); st.Close(); <-ended })
}

func (w *world) serveSTUN(st *site) {
	w.t.Helper()
	socket, err := st.host.ListenUDP(context.Background(), "udp4", stun.DefaultPort)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); stun.NewServer(socket, nil).Serve(ctx) }()
	w.t.Cleanup(func() { cancel(); <-ended })
}

// link joins one relay to another.
func (w *world) link(from, to *site, k key.Mesh) {
	w.t.Helper()
	l, err := mesh.NewLink(mesh.Config{
		Server: from.Server, Private: from.PrivateKey(), MeshKey: k, URL: to.url,
		Dialer: &derp.Dialer{Network: from.host, Roots: w.roots},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Serve(ctx) }()
	w.t.Cleanup(func() { cancel(); <-ended })
}

// certificate returns a certificate that the world's roots trust, good for 90
// days or expired some time ago.
func (w *world) certificate(domain string, expired time.Duration) tls.Certificate {
	w.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	until := time.Now().AddDate(0, 0, 90)
	if expired > 0 {
		until = time.Now().Add(-expired)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain},
		NotBefore: until.AddDate(-1, 0, 0), NotAfter: until, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	w.roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// A meddlingListener changes the frames that a relay without TLS sends.
type meddlingListener struct {
	net.Listener
	frames func(derp.FrameType, []byte) []byte
}

func (l meddlingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.frames == nil {
		return c, err
	}
	return &meddler{Conn: c, frames: l.frames}, nil
}

// A meddler is a connection whose writer writes whole frames, maybe behind an
// HTTP response.
type meddler struct {
	net.Conn
	frames func(derp.FrameType, []byte) []byte
}

func (m *meddler) Write(b []byte) (int, error) {
	var out []byte
	for rest := b; len(rest) > 0; {
		t, n, ok := derp.ParseHeader(rest)
		if !ok || t == 'H' || int(n) > len(rest)-derp.HeaderSize {
			out = append(out, rest...) // HTTP
			break
		}
		payload := rest[derp.HeaderSize:][:n]
		rest = rest[derp.HeaderSize+n:]
		if changed := m.frames(t, append([]byte(nil), payload...)); changed != nil {
			out = derp.AppendFrame(out, t, changed)
		}
	}
	if _, err := m.Conn.Write(out); err != nil {
		return 0, fmt.Errorf("meddler: %w", err)
	}
	return len(b), nil
}
