package certs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestIPBackoff: DERP-156: after a failure an address waits a minute, doubling
// to half an hour, before the authority is asked again; meanwhile handshakes
// fail at once with the reason. A success ends it.
func TestIPBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		a.refuse = true
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		start := time.Now()
		for i, wait := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			for range 3 { // the second and third do not ask
				_, err := p.GetCertificate(helloAt("203.0.113.7", ""))
				if err == nil || !strings.Contains(err.Error(), "order refused") {
					t.Fatalf("attempt %d: %v", i, err)
				}
			}
			if n := a.count(); n != i+1 {
				t.Fatalf("%d orders %v after the start, want %d", n, time.Since(start), i+1)
			}
			time.Sleep(wait*time.Minute - time.Second) // fake time
			p.GetCertificate(helloAt("203.0.113.7", ""))
			if n := a.count(); n != i+1 {
				t.Fatalf("asked again less than %d minutes after failure %d", wait, i+1)
			}
			time.Sleep(time.Second) // fake time
		}
		a.set(func() { a.refuse = false })
		if err := connect(p, a, "203.0.113.7", "203.0.113.7"); err != nil {
			t.Error(err)
		}
	})
}

// TestIPRenew: DERP-156: at the hourly check, and no earlier, a certificate
// with less than a third of its life left is renewed; handshakes never wait.
func TestIPRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		first := expires(t, p, "203.0.113.7")
		time.Sleep(time.Until(first.Add(-week / 3))) // fake time
		if n := a.count(); n != 1 {
			t.Errorf("%d orders before the last third", n)
		}
		time.Sleep(time.Hour + time.Second) // fake time
		synctest.Wait()
		if second := expires(t, p, "203.0.113.7"); a.count() != 2 || !second.After(first) {
			t.Errorf("in the last third: %d orders, %v after %v", a.count(), second, first)
		}
	})
}

// TestIPRenewFails: a certificate that cannot be renewed is used to its end,
// while the renewal is tried again; then the reason is told.
func TestIPRenewFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		first := expires(t, p, "203.0.113.7")
		a.set(func() { a.refuse = true })
		time.Sleep(time.Until(first) - time.Second) // fake time
		if got := expires(t, p, "203.0.113.7"); !got.Equal(first) {
			t.Errorf("before its end another is used: %v", got)
		}
		if n := a.count(); n < 40 || n > 50 { // hourly for two days
			t.Errorf("%d orders", n)
		}
		time.Sleep(2 * time.Second) // fake time
		if _, err := p.GetCertificate(helloAt("203.0.113.7", "")); err == nil {
			t.Error("an expired certificate is used")
		}
		time.Sleep(30 * time.Minute) // fake time
		a.set(func() { a.refuse = false })
		if err := connect(p, a, "203.0.113.7", "203.0.113.7"); err != nil {
			t.Error(err)
		}
	})
}

// TestIPStaleFile: a certificate on disk that is to be renewed, or is another
// address's, is not used.
func TestIPStaleFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir := newIPAuthority(t), t.TempDir()
		p, stop := a.startIP(t, a.config(dir))
		first := expires(t, p, "203.0.113.7")
		stop()
		for _, suffix := range []string{".crt", ".key"} {
			b, err := os.ReadFile(filepath.Join(dir, "203.0.113.7"+suffix))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "203.0.113.8"+suffix), string(b))
		}
		time.Sleep(time.Until(first.Add(-week/3 + time.Minute))) // fake time
		p, stop = a.startIP(t, a.config(dir))
		defer stop()
		if got := expires(t, p, "203.0.113.7"); !got.After(first) || a.count() != 2 {
			t.Errorf("a stale file: ends %v, %d orders", got, a.count())
		}
		if err := connect(p, a, "203.0.113.8", "203.0.113.8"); err != nil || a.count() != 3 {
			t.Errorf("another's file: %v, %d orders", err, a.count())
		}
	})
}

// TestIPForgets: an address that failed and is not asked for any more makes room
// at the next check and is not ordered for again.
func TestIPForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newIPAuthority(t)
		a.refuse = true
		p, stop := a.startIP(t, a.config(t.TempDir()))
		defer stop()
		p.GetCertificate(helloAt("203.0.113.7", ""))
		if n := len(p.(*ipCerts).addrs.Get()); n != 1 {
			t.Fatalf("%d addresses are known", n)
		}
		time.Sleep(renewCheck + time.Second) // fake time
		synctest.Wait()
		if n := len(p.(*ipCerts).addrs.Get()); n != 0 || a.count() != 1 {
			t.Errorf("%d addresses are known, %d orders", n, a.count())
		}
	})
}
