package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"
)

// When an operator is told that a certificate ends. By then a renewal that
// works has long been made: certbot and ACME's own take a third of a
// certificate's life, or 30 days.
const (
	warnBefore  = 14 * 24 * time.Hour // or a sixth of its life, if that is less
	remindEvery = 12 * time.Hour
)

// An expiryWatch tells an operator of a certificate that is not renewed in
// time: clients refuse the relay when it has ended.
type expiryWatch struct {
	log     *slog.Logger
	host    string
	hint    string                  // what to do
	current func() *tls.Certificate // nil: there is none yet
}

// run looks at once and then again and again, until ctx ends.
func (w *expiryWatch) run(ctx context.Context) error {
	timer := time.NewTimer(remindEvery)
	defer timer.Stop()
	for {
		timer.Reset(w.look(time.Now()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look logs what there is to say now, and returns when to look again: when the
// certificate ends, if that is sooner.
func (w *expiryWatch) look(now time.Time) time.Duration {
	cert := w.current()
	if cert == nil {
		return remindEvery
	}
	end := cert.Leaf.NotAfter
	left := end.Sub(now)
	switch {
	case left < 0:
		w.log.Error("the relay's certificate has expired: clients refuse it", "host", w.host, "expired", end, "hint", w.hint)
		return remindEvery
	case left < warningTime(cert.Leaf):
		w.log.Warn("the relay's certificate expires soon", "host", w.host, "expires", end, "hint", w.hint)
	}
	return min(left+time.Second, remindEvery)
}

// warningTime is how long before its end a certificate should have been
// replaced.
func warningTime(leaf *x509.Certificate) time.Duration {
	return min(leaf.NotAfter.Sub(leaf.NotBefore)/6, warnBefore)
}
