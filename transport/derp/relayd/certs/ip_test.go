package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"
)

const week = 6 * 24 * time.Hour // life of a short-lived certificate

// newIPAuthority is an authority that certifies addresses at a relay's handler.
func newIPAuthority(t *testing.T) *authority {
	a := newAuthority(t)
	a.life = week
	return a
}

// look makes the authority visit a handler without a network.
func (a *authority) look(h http.Handler) {
	a.visit = func(_ context.Context, _, name, path string) (string, error) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = name
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			return "", fmt.Errorf("status %d", w.Code)
		}
		return w.Body.String(), nil
	}
}

// startIP runs a provider of certificates for addresses until stop is called.
func (a *authority) startIP(t *testing.T, c ACMEConfig) (p Provider, stop func()) {
	t.Helper()
	c.IPCerts = true
	p = provide(t, c)
	a.look(p.HTTPHandler(http.NotFoundHandler()))
	return p, serve(t, p)
}

// serve runs a provider until the function it returns is called.
func serve(t *testing.T, p Provider) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve ended with %v", err)
		}
	}
}

// at is a connection whose address here is another than it is.
type at struct {
	net.Conn
	local string
}

func (c at) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.local), 443))
}

// helloAt is a handshake that asks for a name at one of our addresses.
func helloAt(local, name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: name, Conn: at{local: local}}
}

// expires returns when the certificate at an address ends.
func expires(t *testing.T, p Provider, local string) time.Time {
	t.Helper()
	cert, err := p.GetCertificate(helloAt(local, ""))
	if err != nil {
		t.Error(err)
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}

// connect shakes hands at one of our addresses with a client that checks the
// certificate for a name or address.
func connect(p Provider, a *authority, local, name string) error {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	server := tls.Server(at{there, local}, &tls.Config{GetCertificate: p.GetCertificate, NextProtos: p.NextProtos()})
	go server.Handshake()
	client := tls.Client(here, &tls.Config{ServerName: name, RootCAs: a.roots()})
	return client.Handshake()
}

// TestIPIssue: DERP-156: clients that connect to an address, with no server
// name, get a certificate for it, in the short-lived profile, and share one
// issuance; a restart finds it in its files.
func TestIPIssue(t *testing.T) {
	for ip, name := range map[string]string{"203.0.113.7": "203.0.113.7", "2001:db8::7": "2001.db8..7"} {
		t.Run(ip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, dir := newIPAuthority(t), filepath.Join(t.TempDir(), "certs")
				c := a.config(dir)
				c.Host, c.Email = ip, "ops@example.com"
				p, stop := a.startIP(t, c)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						if err := connect(p, a, ip, ip); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				stop()
				if n := a.count(); n != 1 || a.orders[0].kind != "ip" || a.orders[0].profile != "shortlived" {
					t.Fatalf("%d orders, the first %+v", n, a.orders[0])
				}
				if got := a.orders[0].account.contact; len(got) != 1 || got[0] != "mailto:ops@example.com" {
					t.Errorf("contact %v", got)
				}
				if _, err := pairIn(dir, name).load(ip, time.Now()); err != nil {
					t.Error(err)
				}
				p, stop = a.startIP(t, c)
				defer stop()
				if err := connect(p, a, ip, ip); err != nil || a.count() != 1 {
					t.Errorf("after a restart: %v, %d orders", err, a.count())
				}
				if n := len(a.accounts); n != 1 {
					t.Errorf("%d accounts", n)
				}
			})
		})
	}
}

// TestIPForeign: DERP-156: nothing is ordered for an address that is not the
// connection's own, nor for one that no public authority certifies.
func TestIPForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		c := a.config(t.TempDir())
		c.Host = "203.0.113.7"
		p, stop := a.startIP(t, c)
		defer stop()
		for _, h := range []*tls.ClientHelloInfo{
			helloAt("203.0.113.7", "203.0.113.8"),
			helloAt("203.0.113.7", "2001:db8::8"),
			helloAt("203.0.113.7", relayName),
			helloAt("127.0.0.1", ""),
			helloAt("::1", "::1"),
			helloAt("10.0.0.1", ""),
			helloAt("fd00::1", ""),
			helloAt("169.254.1.1", ""),
			helloAt("fe80::1%eth0", ""),
			hello(""),
			hello("203.0.113.7"),
		} {
			if _, err := p.GetCertificate(h); err == nil || !strings.HasPrefix(err.Error(), "certs: ") {
				t.Errorf("%v asked for %q: %v", h.Conn, h.ServerName, err)
			}
		}
		if n := a.count(); n != 0 {
			t.Errorf("%d orders", n)
		}
		for _, h := range []*tls.ClientHelloInfo{helloAt("203.0.113.7", "203.0.113.7"), helloAt("::ffff:203.0.113.7", "")} {
			if _, err := p.GetCertificate(h); err != nil {
				t.Error(err)
			}
		}
		if n := a.count(); n != 1 {
			t.Errorf("%d orders for one address", n)
		}
	})
}

// TestIPOthersGoOn: one address that fails keeps no other from its certificate.
func TestIPOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		visit := a.visit
		a.visit = func(ctx context.Context, challenge, name, path string) (string, error) {
			if name == "203.0.113.8" {
				return "", errors.New("no route")
			}
			return visit(ctx, challenge, name, path)
		}
		if _, err := p.GetCertificate(helloAt("203.0.113.8", "")); err == nil || !strings.Contains(err.Error(), "authorize") {
			t.Errorf("an address that cannot be validated: %v", err)
		}
		if err := connect(p, a, "203.0.113.7", "203.0.113.7"); err != nil {
			t.Error(err)
		}
	})
}

// TestIPTimeout: DERP-156: an authority that hangs is given three minutes; a
// client that gives up earlier is not held.
func TestIPTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		a.hang = true
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		local := netip.MustParseAddr("203.0.113.7")
		if _, err := p.(*ipCerts).await(ctx, local); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("a client that gives up: %v after %v", err, time.Since(start))
		}
		_, err := p.GetCertificate(helloAt("203.0.113.7", ""))
		if err == nil || !strings.Contains(err.Error(), "not issued in 3m0s") || time.Since(start) != 3*time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestIPBound: a host answers at few addresses; where there are more, what is
// beyond the bound gets no certificate and costs no order.
func TestIPBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		known := make(map[netip.Addr]address)
		for i := range maxAddresses {
			known[netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})] = address{}
		}
		p.(*ipCerts).addrs.Store(known)
		if _, err := p.GetCertificate(helloAt("198.51.100.1", "")); err == nil || !strings.Contains(err.Error(), "64 other addresses") || a.count() != 0 {
			t.Errorf("%v, %d orders", err, a.count())
		}
	})
}

// TestIPRestart: what a Serve that ends has begun, the next one does again;
// handshakes only wait longer.
func TestIPRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		a.hang = true
		p, stop := a.startIP(t, a.config(t.TempDir()))
		shaken := make(chan error, 1)
		go func() { shaken <- connect(p, a, "203.0.113.7", "203.0.113.7") }()
		synctest.Wait()
		stop()
		a.set(func() { a.hang = false })
		defer serve(t, p)()
		if err := <-shaken; err != nil {
			t.Error(err)
		}
	})
}

// TestIPBesideHost: DERP-156: with both, a name gets the certificate of the
// relay's name, no name that of the address, and a foreign name none.
func TestIPBesideHost(t *testing.T) {
	a := newIPAuthority(t)
	p, stop := a.startIP(t, a.config(t.TempDir()))
	defer stop()
	for _, name := range []string{relayName, "203.0.113.7"} {
		if err := connect(p, a, "203.0.113.7", name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := fmt.Sprint(p.NextProtos()); got != "[http/1.1 "+acme.ALPNProto+"]" {
		t.Errorf("offers %s", got)
	}
	if _, err := p.GetCertificate(helloAt("203.0.113.7", "other.example.com")); err == nil {
		t.Error("a foreign name has a certificate")
	}
	if n := a.count(); n != 2 {
		t.Errorf("%d orders", n)
	}
	if err := p.Reload(); err != nil {
		t.Error(err)
	}
}

// TestIPOverLoopback: the authority validates an address at the relay's port 80
// as it does on the internet; other requests get the fallback.
func TestIPOverLoopback(t *testing.T) {
	a := newIPAuthority(t)
	c := a.config(t.TempDir())
	c.Host, c.IPCerts = "203.0.113.7", true
	p := provide(t, c)
	defer serve(t, p)()
	s := serveSite(t, p)
	a.visit = s.visit
	if err := connect(p, a, c.Host, c.Host); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/", "/.well-known/acme-challenge/token-0", "/.well-known/acme-challenge/"} {
		if b, err := s.visit(t.Context(), "http-01", c.Host, path); b != "fallback" {
			t.Errorf("%s answers %q: %v", path, b, err)
		}
	}
}

// TestIPLogs: an operator sees when there is a certificate, until when, and why
// there is none.
func TestIPLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		var logged bytes.Buffer
		c := a.config(t.TempDir())
		c.Logger = slog.New(slog.NewTextHandler(io.Writer(&logged), nil))
		a.refuse = true
		p, stop := a.startIP(t, c)
		p.GetCertificate(helloAt("203.0.113.7", ""))
		a.set(func() { a.refuse = false })
		time.Sleep(time.Minute) // fake time
		p.GetCertificate(helloAt("203.0.113.7", ""))
		stop()
		for _, want := range []string{"order refused", "retry_in=1m0s", "ip=203.0.113.7 expires="} {
			if !strings.Contains(logged.String(), want) {
				t.Errorf("logged %q, want %q in it", logged.String(), want)
			}
		}
	})
}
