package control

import (
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
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// certificate makes a self-signed certificate for a name, valid at any time.
func certificate(t testing.TB, name string) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, roots
}

func TestUpgradeURLs(t *testing.T) { // CTL-07
	for control, want := range map[string]string{
		"https://h":               "http://h/ts2021 https://h/ts2021",
		"https://h:443":           "http://h/ts2021 https://h/ts2021",
		"https://h:8443":          "- https://h:8443/ts2021",
		"http://h":                "http://h/ts2021 https://h/ts2021",
		"http://h:8080":           "http://h:8080/ts2021 https://h/ts2021",
		"http://localhost:8080":   "http://localhost:8080/ts2021 -",
		"http://127.0.0.1":        "http://127.0.0.1/ts2021 -",
		"http://192.168.1.1:1":    "http://192.168.1.1:1/ts2021 -",
		"http://[fd00::1]:1":      "http://[fd00::1]:1/ts2021 -",
		"http://[2001:db8::1]:81": "http://[2001:db8::1]:81/ts2021 https://[2001:db8::1]/ts2021",
		"https://h/base":          "http://h/base/ts2021 https://h/base/ts2021",
	} {
		u, err := url.Parse(control)
		if err != nil {
			t.Fatal(err)
		}
		plain, secure := upgradeURLs(u)
		show := func(u *url.URL) string {
			if u == nil {
				return "-"
			}
			return u.String()
		}
		if got := show(plain) + " " + show(secure); got != want {
			t.Errorf("%s: %s, want %s", control, got, want)
		}
	}
}

func TestDialDeadline(t *testing.T) { // CTL-08
	for _, test := range []struct {
		candidates []DialCandidate
		want       time.Duration
	}{
		{nil, 10 * time.Second},
		{[]DialCandidate{{DialTimeoutSec: 1}}, 10 * time.Second},
		{[]DialCandidate{{DialTimeoutSec: 10}, {DialStartDelaySec: 3, DialTimeoutSec: 12}}, 20 * time.Second},
		{[]DialCandidate{{DialTimeoutSec: 1e9}}, 60 * time.Second},
	} {
		if got := dialDeadline(test.candidates); got != test.want {
			t.Errorf("%+v: %v, want %v", test.candidates, got, test.want)
		}
	}
}

// newTestDialer returns a dialer of a server in the test's network.
func newTestDialer(t *testing.T, s *testServer, control string, roots *x509.CertPool) *dialer {
	t.Helper()
	c, err := New(Config{URL: control, Network: s.network, Machine: key.NewMachine(), Keys: new(memoryKeys), Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	return c.link.dialer
}

// dialOnce dials, says how long it took and closes the connection.
func dialOnce(t *testing.T, d *dialer, server key.MachinePublic) (time.Duration, error) {
	t.Helper()
	begin := time.Now()
	c, err := d.dial(t.Context(), server)
	took := time.Since(begin)
	if err == nil {
		c.Close()
	}
	synctest.Wait()
	return took, err
}

func TestRaceOfLegs(t *testing.T) { // CTL-07, CTL-11
	cert, _ := certificate(t, "someone.else") // does not verify; Noise does
	hang := func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	for name, test := range map[string]struct {
		plain, secure, silent bool
		upgrade               func(http.ResponseWriter, *http.Request) bool
		took                  time.Duration
		dialed                string
		err                   string
	}{
		"plaintext wins":                   {plain: true, secure: true, took: 0, dialed: "h:80"},
		"TLS at once when plaintext fails": {secure: true, took: 0, dialed: "h:80 h:443"},
		"TLS after half a second":          {secure: true, silent: true, took: tlsAfter, dialed: "h:80 h:443"},
		"none":                             {took: 0, dialed: "h:80 h:443", err: "refused; "},
		"deadline":                         {plain: true, secure: true, upgrade: hang, took: dialTimeout, dialed: "h:80 h:443", err: "deadline"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTestServer(t)
			s.upgrade = test.upgrade
			if test.plain {
				s.listen("h:80", nil)
			}
			if test.secure {
				s.listen("h:443", cert)
			}
			s.network.silent["h:80"] = test.silent
			d := newTestDialer(t, s, "https://h", nil)
			took, err := dialOnce(t, d, s.key.Public())
			if took != test.took || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v, %v", name, took, err)
			}
			if got := strings.Join(s.network.dialed(), " "); got != test.dialed {
				t.Errorf("%s: dialed %q, want %q", name, got, test.dialed)
			}
			s.drop()
		})
	}
}

// A server with plaintext alone is reached again, however often the connection
// is lost.
func TestRedialWithoutTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t)
		s.listen("198.51.100.7:80", nil)
		d := newTestDialer(t, s, "http://198.51.100.7", nil)
		for i := range 4 {
			if _, err := dialOnce(t, d, s.key.Public()); err != nil {
				t.Errorf("dial %d: %v", i, err)
			}
			time.Sleep(10 * time.Second) // fake time
		}
		s.drop()
	})
}

func TestSecondDialIsTLSOnly(t *testing.T) { // CTL-07
	synctest.Test(t, func(t *testing.T) {
		cert, _ := certificate(t, "h")
		s := newTestServer(t)
		s.listen("h:80", nil)
		s.listen("h:443", cert)
		d := newTestDialer(t, s, "https://h", nil)
		for range 3 {
			if _, err := dialOnce(t, d, s.key.Public()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(90 * time.Second) // fake time
		}
		time.Sleep(time.Minute) // fake time
		if _, err := dialOnce(t, d, s.key.Public()); err != nil {
			t.Fatal(err)
		}
		if got := s.network.dialed(); !slices.Equal(got, []string{"h:80", "h:443", "h:443", "h:80"}) {
			t.Errorf("dialed %q", got)
		}
		s.drop()
	})
}

func TestDialPlan(t *testing.T) { // CTL-10
	candidate := func(ip string, delay, timeout float64) DialCandidate {
		return DialCandidate{IP: netip.MustParseAddr(ip), DialStartDelaySec: delay, DialTimeoutSec: timeout}
	}
	for name, test := range map[string]struct {
		plan   []DialCandidate
		at     string // where the server listens
		silent []string
		took   time.Duration
		dialed string
	}{
		"first":             {[]DialCandidate{candidate("192.0.2.1", 0, 5), candidate("192.0.2.2", 2, 5)}, "192.0.2.1:80", nil, 0, "192.0.2.1:80"},
		"delay":             {[]DialCandidate{candidate("192.0.2.1", 0, 5), candidate("192.0.2.2", 2, 5)}, "192.0.2.2:80", []string{"192.0.2.1:80", "192.0.2.1:443"}, 2 * time.Second, "192.0.2.1:80 192.0.2.1:443 192.0.2.2:80"},
		"failure, no delay": {[]DialCandidate{candidate("192.0.2.1", 0, 5), candidate("192.0.2.2", 2, 5)}, "192.0.2.2:80", nil, 0, "192.0.2.1:80 192.0.2.1:443 192.0.2.2:80"},
		"order":             {[]DialCandidate{candidate("192.0.2.2", 2, 5), candidate("192.0.2.1", 0, 5)}, "192.0.2.1:80", nil, 0, "192.0.2.1:80"},
		"DNS at last":       {[]DialCandidate{candidate("192.0.2.1", 0, 1)}, "h:80", []string{"192.0.2.1:80", "192.0.2.1:443"}, time.Second, "192.0.2.1:80 192.0.2.1:443 h:80"},
		"ACE is skipped":    {[]DialCandidate{{ACEHost: "ace", DialTimeoutSec: 5}}, "h:80", nil, 0, "h:80"},
		"empty":             {nil, "h:80", nil, 0, "h:80"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTestServer(t)
			var host string
			s.upgrade = func(_ http.ResponseWriter, r *http.Request) bool { host = r.Host; return false }
			s.listen(test.at, nil)
			for _, a := range test.silent {
				s.network.silent[a] = true
			}
			d := newTestDialer(t, s, "https://h", nil)
			d.plan.Store(&DialPlan{Candidates: test.plan})
			took, err := dialOnce(t, d, s.key.Public())
			if err != nil || took != test.took || host != "h" {
				t.Errorf("%s: %v, %v, host %q", name, took, err, host)
			}
			if got := strings.Join(s.network.dialed(), " "); got != test.dialed {
				t.Errorf("%s: dialed %q, want %q", name, got, test.dialed)
			}
			s.drop()
		})
	}
}

// TestUnresolvedServer: a server that the host's resolver does not know is
// asked for elsewhere (control.md section 3.4), one that refuses is not.
func TestUnresolvedServer(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		addrs   []netip.Addr
		failure error
		dialed  string
		ok      bool
	}{
		"found elsewhere":  {&net.DNSError{Name: "h"}, []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::1")}, nil, "h:443 192.0.2.9:443 [2001:db8::1]:443", true},
		"nobody knows":     {&net.DNSError{Name: "h"}, nil, errors.New("no relay knows it"), "h:443", false},
		"no address":       {&net.DNSError{Name: "h"}, nil, nil, "h:443", false},
		"not DNS's fault":  {errors.New("network is down"), []netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil, "h:443", false},
		"DNS of the proxy": {&net.OpError{Err: &net.DNSError{Name: "proxy"}}, []netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil, "proxy:3128", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			cert, roots := certificate(t, "h")
			s := newTestServer(t)
			s.listen("[2001:db8::1]:443", cert)
			d := newTestDialer(t, s, "https://h", roots)
			d.lastDial = time.Now() // TLS only
			d.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "h" {
					t.Errorf("%s: asked for %q", name, host)
				}
				return test.addrs, test.failure
			}
			first, _, _ := strings.Cut(test.dialed, " ")
			s.network.fails[first] = test.err
			if strings.HasPrefix(first, "proxy") {
				d.proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "proxy:3128"}, nil }
			}
			_, err := dialOnce(t, d, s.key.Public())
			if (err == nil) != test.ok {
				t.Errorf("%s: %v", name, err)
			}
			if test.failure != nil && !errors.Is(err, test.failure) {
				t.Errorf("%s: the error %v does not say %v", name, err, test.failure)
			}
			if got := strings.Join(s.network.dialed(), " "); got != test.dialed {
				t.Errorf("%s: dialed %q, want %q", name, got, test.dialed)
			}
			s.drop()
		})
	}
}

// VPN-22: headers of the configuration are in the requests that are not encrypted,
// beside ours.
func TestHeadersOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t)
		var got http.Header
		s.upgrade = func(_ http.ResponseWriter, r *http.Request) bool { got = r.Header.Clone(); return false }
		s.listen("127.0.0.1:8080", nil)
		d := newTestDialer(t, s, testURL, nil)
		d.headers = http.Header{"X-Gate": {"open", "sesame"}, "Upgrade": {"h2c"}}
		if _, err := dialOnce(t, d, s.key.Public()); err != nil {
			t.Fatal(err)
		}
		if len(got["X-Gate"]) != 2 || got.Get("Upgrade") != upgradeProtocol {
			t.Errorf("headers %v", got)
		}
	})
}

func TestUpgradeRequestAndAnswer(t *testing.T) { // CTL-06
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t)
		var got *http.Request
		s.upgrade = func(_ http.ResponseWriter, r *http.Request) bool { got = r.Clone(context.Background()); return false }
		s.listen("127.0.0.1:8080", nil)
		d := newTestDialer(t, s, testURL, nil)
		if _, err := dialOnce(t, d, s.key.Public()); err != nil {
			t.Fatal(err)
		}
		h := got.Header
		if got.Method != "POST" || got.Proto != "HTTP/1.1" || got.Host != "127.0.0.1:8080" || len(h.Get(handshakeHeader)) != 136 ||
			h.Get("Upgrade") != "tailscale-control-protocol" || h.Get("Connection") != "upgrade" || h.Get("Content-Length") != "0" || len(h) != 4 {
			t.Errorf("request = %s %s %s, %v", got.Method, got.Host, got.Proto, h)
		}
		for name, test := range map[string]struct {
			answer string
			want   string
		}{
			"not found":      {"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope!", `"nope!"`},
			"OK":             {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "status 200"},
			"other protocol": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", `switched to "websocket"`},
			"no protocol":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n", `switched to ""`},
			"closed":         {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n", "capability version"},
			"error frame":    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n\x03\x00\x02no", `handshake: "no"`},
			"no HTTP":        {"SSH-2.0-OpenSSH\r\n", "malformed HTTP"},
		} {
			s.network.set("127.0.0.1:8080", func(c net.Conn) {
				go func() {
					defer c.Close()
					if _, err := http.ReadRequest(newReader(c)); err == nil {
						io.WriteString(c, test.answer)
					}
				}()
			})
			if _, err := dialOnce(t, d, s.key.Public()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %q in it", name, err, test.want)
			}
		}
		s.drop()
	})
}

func TestFetchKey(t *testing.T) { // CTL-05, SVC-66
	good := key.NewMachine().Public()
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   error
	}{
		"good": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"legacyPublicKey":"mkey:%064x","publicKey":%q}`, 0, good)
		}, nil},
		"a page":        {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }, ErrNotControl},
		"empty":         {func(w http.ResponseWriter, r *http.Request) {}, ErrNotControl},
		"bare hex":      {func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%064x", 1) }, ErrNotControl},
		"no Noise key":  {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) }, ErrNotControl},
		"not found":     {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, ErrNotControl},
		"bad gateway":   {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }, ErrUnreachable},
		"too long":      {func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, maxKeyBody+1)) }, ErrNotControl},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }, ErrUnreachable},
		"a key that is none": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"publicKey":"nodekey:12"}`)
		}, ErrNotControl},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTestServer(t)
			var query string
			l := newQueueListener()
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { query = r.URL.String(); test.answer(w, r) })}
			go srv.Serve(l)
			t.Cleanup(func() { srv.Close() })
			s.network.set("127.0.0.1:8080", func(c net.Conn) { l.conns <- c })
			k, err := newTestDialer(t, s, testURL+"/", nil).fetchKey(t.Context())
			if !errors.Is(err, test.want) || err == nil && k != good {
				t.Errorf("%s: %v, %v, want %v", name, k, err, test.want)
			}
			if query != "/key?v=130" {
				t.Errorf("asked for %s", query)
			}
		})
	}
}

func TestKeyNeedsTrustedCertificate(t *testing.T) { // CTL-11
	cert, roots := certificate(t, "h")
	wrong, _ := certificate(t, "h")
	for name, test := range map[string]struct {
		cert *tls.Certificate
		want error
	}{
		"trusted":   {cert, nil},
		"untrusted": {wrong, ErrUntrusted},
		"no TLS":    {nil, ErrNotControl},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTestServer(t)
			s.listen("h:443", test.cert)
			if _, err := newTestDialer(t, s, "https://h", roots).fetchKey(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			}
			s.drop()
		})
	}
}

func TestProxyIsUsed(t *testing.T) { // CTL-09
	synctest.Test(t, func(t *testing.T) {
		cert, roots := certificate(t, "h")
		s := newTestServer(t)
		s.listen("h:443", cert)
		var connects []string
		l := newQueueListener()
		proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connects = append(connects, r.Method+" "+r.Host)
			if r.Method != http.MethodConnect {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			to, err := s.network.Dial(context.Background(), "tcp", r.Host)
			if err != nil {
				nc.Close()
				return
			}
			io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n")
			go func() { io.Copy(nc, to); nc.Close() }()
			go func() { io.Copy(to, nc); to.Close() }()
		})}
		go proxy.Serve(l)
		t.Cleanup(func() { proxy.Close() })
		s.network.set("proxy:3128", func(c net.Conn) { l.conns <- c })
		d := newTestDialer(t, s, "https://h", roots)
		d.proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy:3128") }
		k, err := d.fetchKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dialOnce(t, d, k); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(connects, []string{"CONNECT h:443", "POST h", "CONNECT h:443"}) {
			t.Errorf("proxy saw %q", connects)
		}
		s.drop()
	})
}

func TestConfigIsChecked(t *testing.T) {
	for edit, want := range map[string]func(*Config){
		"Network":     func(c *Config) { c.Network = nil },
		"Machine":     func(c *Config) { c.Machine = key.MachinePrivate{} },
		"Keys":        func(c *Config) { c.Keys = nil },
		"want https:": func(c *Config) { c.URL = "ftp://h" },
		"URL":         func(c *Config) { c.URL = "" },
		"no user":     func(c *Config) { c.URL = "https://user:secret@h" },
	} {
		c := Config{URL: testURL, Network: newTestNetwork(), Machine: key.NewMachine(), Keys: new(memoryKeys)}
		want(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), edit) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q in it", err, edit)
		}
	}
}
