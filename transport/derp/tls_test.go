package derp_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// An authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.key, a.cert = issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

// issue makes a certificate signed by a, by itself when a is nil.
func issue(t *testing.T, template *x509.Certificate, a *authority) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.BasicConstraintsValid = big.NewInt(time.Now().UnixNano()), true
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := template, k
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &k.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return k, c
}

func (a *authority) leaf(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	k, c := issue(t, template, a)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: k}
}

// tlsServer completes handshakes with cfg and records the SNI.
func tlsServer(t *testing.T, cfg *tls.Config) (port int, sni <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			tc := tls.Server(c, cfg)
			tc.SetDeadline(time.Now().Add(patience))
			tc.Handshake()
			names <- tc.ConnectionState().ServerName
			tc.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return ln.Addr().(*net.TCPAddr).Port, names
}

// TestTLS: DERP-127, DERP-128, DERP-108: which certificates are taken for which
// node of the map.
func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	s := relay.New(key.NewNode(), relay.Options{})
	named := ca.leaf(t, &x509.Certificate{DNSNames: []string{"relay.test"}})
	byIP := ca.leaf(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	self, err := relay.SelfSigned("relay.test")
	if err != nil {
		t.Fatal(err)
	}
	old := ca.leaf(t, &x509.Certificate{DNSNames: []string{"relay.test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	pair := tls.Certificate{Certificate: append([][]byte{self.Certificate[0]}, named.Certificate...), PrivateKey: self.PrivateKey}
	pin := func(c tls.Certificate) string { return derp.PinCertName(c.Certificate[0]) }

	for name, tt := range map[string]struct {
		cert tls.Certificate
		node netmap.DERPNode
		sni  string
		err  string // empty: accepted
	}{
		"normal":              {named, netmap.DERPNode{HostName: "relay.test"}, "relay.test", ""},
		"CertName is host":    {named, netmap.DERPNode{HostName: "relay.test", CertName: "relay.test"}, "relay.test", ""},
		"wrong name":          {named, netmap.DERPNode{HostName: "other.test"}, "other.test", "not other.test"},
		"IP literal":          {byIP, netmap.DERPNode{HostName: "127.0.0.1"}, "", ""},
		"IP literal, no SAN":  {named, netmap.DERPNode{HostName: "127.0.0.1"}, "", "IP SANs"},
		"fronting":            {named, netmap.DERPNode{HostName: "front.test", CertName: "relay.test"}, "front.test", ""},
		"fronting, wrong":     {named, netmap.DERPNode{HostName: "relay.test", CertName: "other.test"}, "relay.test", "not other.test"},
		"self-signed":         {self, netmap.DERPNode{HostName: "relay.test"}, "relay.test", "is the connection intercepted"},
		"expired":             {old, netmap.DERPNode{HostName: "relay.test"}, "relay.test", "expired"},
		"insecure":            {self, netmap.DERPNode{HostName: "other.test", InsecureForTests: true}, "other.test", ""},
		"insecure, named":     {self, netmap.DERPNode{HostName: "relay.test", CertName: "x.test", InsecureForTests: true}, "relay.test", "not x.test"},
		"pinned":              {self, netmap.DERPNode{HostName: "relay.test", CertName: pin(self)}, "relay.test", ""},
		"pinned, other":       {self, netmap.DERPNode{HostName: "relay.test", CertName: pin(named)}, "relay.test", "but the DERP map pins"},
		"pinned, IP literal":  {named, netmap.DERPNode{HostName: "127.0.0.1", CertName: pin(named)}, "", ""}, // the pin says enough
		"pinned, other name":  {self, netmap.DERPNode{HostName: "other.test", CertName: pin(self)}, "other.test", "not other.test"},
		"pinned, expired":     {old, netmap.DERPNode{HostName: "relay.test", CertName: pin(old)}, "relay.test", "is valid from"},
		"pinned, with others": {pair, netmap.DERPNode{HostName: "relay.test", CertName: pin(self)}, "relay.test", "more than one certificate"},
		"pinned, not hex":     {self, netmap.DERPNode{HostName: "relay.test", CertName: "sha256-raw:xyz"}, "relay.test", "pins xyz"},
		"pinned, insecure":    {self, netmap.DERPNode{HostName: "relay.test", CertName: pin(named), InsecureForTests: true}, "relay.test", "pins"},
	} {
		t.Run(name, func(t *testing.T) {
			port, sni := tlsServer(t, s.TLSConfig(tt.cert))
			n := tt.node
			n.Name, n.IPv4, n.IPv6, n.DERPPort = "1a", "127.0.0.1", "none", port
			d := &derp.Dialer{Network: host.OS{}, Roots: roots}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			stream, err := d.DialTLS(ctx, &netmap.Region{RegionID: 1, Nodes: []*netmap.DERPNode{&n}})
			if got := <-sni; err == nil && got != tt.sni {
				t.Errorf("SNI %q, want %q", got, tt.sni)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if stream.ServerKey != s.PublicKey() {
				t.Errorf("the handshake told the key %v, want %v", stream.ServerKey, s.PublicKey())
			}
			if st, ok := stream.TLS(); !ok || st.Version != tls.VersionTLS13 || st.NegotiatedProtocol != "" {
				t.Errorf("TLS %x, protocol %q", st.Version, st.NegotiatedProtocol)
			}
		})
	}
}

// TestRoots: DERP-127: the system's roots, the configured ones and those of a
// TLS template each suffice, and none replaces the check of the name.
func TestRoots(t *testing.T) {
	ca := newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	cert := ca.leaf(t, &x509.Certificate{DNSNames: []string{"relay.test"}})
	refused := errors.New("refused by the template")
	for name, tt := range map[string]struct {
		d    derp.Dialer
		host string
		err  string
	}{
		"none":              {derp.Dialer{}, "relay.test", "is the connection intercepted"},
		"roots":             {derp.Dialer{Roots: roots}, "relay.test", ""},
		"other roots":       {derp.Dialer{Roots: x509.NewCertPool()}, "relay.test", "is the connection intercepted"},
		"template":          {derp.Dialer{TLS: &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}}}, "relay.test", ""},
		"both":              {derp.Dialer{Roots: x509.NewCertPool(), TLS: &tls.Config{RootCAs: roots}}, "relay.test", ""},
		"template, name":    {derp.Dialer{TLS: &tls.Config{RootCAs: roots, ServerName: "other.test"}}, "other.test", "not other.test"},
		"template insecure": {derp.Dialer{TLS: &tls.Config{InsecureSkipVerify: true}}, "other.test", ""},
		"template refuses": {derp.Dialer{Roots: roots, TLS: &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return refused }}},
			"relay.test", "refused by the template"},
	} {
		t.Run(name, func(t *testing.T) {
			port, sni := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
			tt.d.Network = host.OS{}
			n := &netmap.DERPNode{Name: "1a", HostName: tt.host, IPv4: "127.0.0.1", IPv6: "none", DERPPort: port}
			s, err := tt.d.DialTLS(t.Context(), &netmap.Region{RegionID: 1, Nodes: []*netmap.DERPNode{n}})
			<-sni
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if st, _ := s.TLS(); st.NegotiatedProtocol != "" { // DERP-96: HTTP/2 cannot be upgraded
				t.Errorf("protocol %q", st.NegotiatedProtocol)
			}
		})
	}
}

// TestTLSProxy: DERP-126: a proxy over TLS is checked by its own name, against
// the same roots as relays.
func TestTLSProxy(t *testing.T) {
	ca := newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	cert := ca.leaf(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			br := bufio.NewReader(c)
			if r, err := http.ReadRequest(br); err == nil {
				user, password, _ := parseProxyAuth(r)
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				br.ReadByte() // nothing comes before the tunnel is used
				fmt.Fprintf(c, "%s %s by %s:%s", r.Method, r.Host, user, password)
			}
			c.Close()
		}
	}()
	defer func() {
		ln.Close()
		<-ended
	}()
	proxy := &url.URL{Scheme: "https", Host: ln.Addr().String(), User: url.UserPassword("u", "p")}
	d := &derp.Dialer{Network: host.OS{}, Roots: roots, Proxy: http.ProxyURL(proxy), PlainHTTP: true, TLS: &tls.Config{InsecureSkipVerify: true}}
	region := &netmap.Region{RegionID: 1, Nodes: []*netmap.DERPNode{{Name: "1a", HostName: "r.test"}}}
	s, err := d.DialTLS(t.Context(), region)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	io.WriteString(s, "x")
	if got, err := io.ReadAll(s); err != nil || string(got) != "CONNECT r.test:3340 by u:p" {
		t.Errorf("through the proxy %q, %v", got, err)
	}
	d.Roots = nil // the template is for relays, not for the proxy
	if _, err := d.DialTLS(t.Context(), region); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("a proxy that nobody vouches for: %v", err)
	}
}

// parseProxyAuth returns the credentials for a proxy.
func parseProxyAuth(r *http.Request) (user, password string, ok bool) {
	r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
	return r.BasicAuth()
}

// TestNoFastStart: DERP-108: without TLS 1.3, or without a readable MetaCert, a
// client starts the normal way.
func TestNoFastStart(t *testing.T) {
	self, err := relay.SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := relay.New(key.NewNode(), relay.Options{})
	old := s.TLSConfig(self)
	old.MaxVersion = tls.VersionTLS12
	ca := newAuthority(t)
	other := func(name string, serial int64) *tls.Config {
		k := self
		k.Certificate = append([][]byte{self.Certificate[0]}, metaLike(t, ca, name, serial))
		return &tls.Config{Certificates: []tls.Certificate{k}}
	}
	hex := s.PublicKey().Hex()
	for name, cfg := range map[string]*tls.Config{
		"TLS 1.2":       old,
		"no MetaCert":   {Certificates: []tls.Certificate{self}},
		"bad key":       other("derpkey"+hex[1:], 2),
		"other version": other("derpkey"+hex, 3),
		"large serial":  other("derpkey"+hex, 1<<40),
		"other prefix":  other("derp"+hex, 2),
	} {
		t.Run(name, func(t *testing.T) {
			port, sni := tlsServer(t, cfg)
			n := &netmap.DERPNode{Name: "1a", HostName: "127.0.0.1", DERPPort: port, InsecureForTests: true}
			stream, err := (&derp.Dialer{Network: host.OS{}}).DialTLS(t.Context(), &netmap.Region{RegionID: 1, Nodes: []*netmap.DERPNode{n}})
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			<-sni
			if !stream.ServerKey.IsZero() {
				t.Errorf("key %v", stream.ServerKey)
			}
		})
	}
}

func metaLike(t *testing.T, ca *authority, name string, serial int64) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
