package certs

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const day = 24 * time.Hour

// A logBook takes the lines of a logger.
type logBook struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (b *logBook) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(line)
}

// read returns what has been written since the last read.
func (b *logBook) read() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.lines.Reset()
	return b.lines.String()
}

// TestExpiryIsTold: an operator is told two weeks before a certificate ends, is
// reminded twice a day, learns at once when it has ended, and nothing more when
// it has been replaced.
func TestExpiryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		dir := t.TempDir()
		put(t, dir, relayName, relayName) // for a year
		m, err := Manual(dir, relayName, book.logger())
		if err != nil {
			t.Fatal(err)
		}
		defer serve(t, m)()
		end := m.current.Get().Leaf.NotAfter
		until := func(at time.Time) (logged string, soon, expired int) {
			time.Sleep(time.Until(at)) // fake time
			synctest.Wait()
			logged = book.read()
			return logged, strings.Count(logged, "expires soon"), strings.Count(logged, "has expired")
		}
		if logged, _, _ := until(end.Add(-14*day - time.Minute)); logged != "" {
			t.Errorf("logged before there is anything to say: %s", logged)
		}
		if logged, soon, expired := until(end.Add(-day)); soon < 24 || soon > 28 || expired != 0 || !strings.Contains(logged, "SIGHUP") {
			t.Errorf("%d and %d lines in 13 days: %s", soon, expired, logged)
		}
		if logged, _, expired := until(end.Add(2 * time.Second)); expired != 1 || !strings.Contains(logged, "level=ERROR") {
			t.Errorf("%d lines that it has expired: %s", expired, logged)
		}
		put(t, dir, relayName, relayName)
		if err := m.Reload(); err != nil {
			t.Error(err)
		}
		if logged, _, _ := until(time.Now().Add(7 * day)); logged != "" {
			t.Errorf("logged of a new certificate: %s", logged)
		}
	})
}

// TestACMEExpiryIsTold: the authority's client renews in silence, and fails in
// silence; a certificate that is near its end says so.
func TestACMEExpiryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		dir := t.TempDir()
		c := newAuthority(t).config(dir)
		c.Logger = book.logger()
		h := provide(t, c).(*hostCert)
		put(t, dir, relayName, relayName)
		cert, err := pairIn(dir, relayName).load(relayName, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(cert.Leaf.NotAfter) - day) // fake time
		h.current.Store(cert)
		stop := serve(t, h)
		synctest.Wait()
		stop()
		logged := book.read()
		if n := strings.Count(logged, "expires soon"); n != 1 || !strings.Contains(logged, "could not be renewed") {
			t.Errorf("%d lines: %s", n, logged)
		}
	})
}

// TestACMEFailureIsTold: a relay without a certificate says why, at most once a
// minute however many clients come, and nothing of names that are not its own.
func TestACMEFailureIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		a := newAuthority(t)
		a.refuse = true
		c := a.config(t.TempDir())
		c.Logger = book.logger()
		p := provide(t, c)
		p.GetCertificate(hello("other.example.com"))
		if logged := book.read(); logged != "" {
			t.Errorf("logged of another name: %s", logged)
		}
		for range 180 {
			if _, err := p.GetCertificate(hello(relayName)); err == nil {
				t.Fatal("there is a certificate")
			}
			time.Sleep(time.Second) // fake time
		}
		logged := book.read()
		if n := strings.Count(logged, "\n"); n < 2 || n > 4 || !strings.Contains(logged, "order refused") {
			t.Errorf("%d lines in three minutes: %s", n, logged)
		}
	})
}
