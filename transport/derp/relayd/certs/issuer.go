package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Times of an issuance (DERP-156).
const (
	issueTimeout = 3 * time.Minute
	firstRetry   = time.Minute // after a failure, doubling with each further one
	maxRetry     = 30 * time.Minute
)

// An issuer is the state of one Serve. Only its loop changes it.
type issuer struct {
	p     *ipCerts
	g     *actor.Group
	addrs map[netip.Addr]address
	ended chan outcome
}

// newIssuer goes on with what an earlier Serve has left.
func newIssuer(p *ipCerts, g *actor.Group) *issuer {
	st := &issuer{p: p, g: g, addrs: maps.Clone(p.addrs.Get()), ended: make(chan outcome)}
	for ip, a := range st.addrs {
		a.busy = false
		st.addrs[ip] = a
	}
	st.publish() // wakes those who waited for an issuance that is no more
	return st
}

func (st *issuer) publish() { st.p.addrs.Store(maps.Clone(st.addrs)) }

// want starts an issuance unless there is no need or one must wait.
func (st *issuer) want(ip netip.Addr, now time.Time) {
	a := st.addrs[ip]
	if a.busy || now.Before(a.retry) || a.cert != nil && !renewable(a.cert, now) {
		return
	}
	a.busy = true
	st.addrs[ip] = a
	st.publish()
	st.g.Go((&issuance{st.p.order, ip, st.ended}).run)
}

// renew wants every certificate anew that is near its end, and forgets addresses
// that have none and that nobody asks for: they may no longer be ours.
func (st *issuer) renew(now time.Time) {
	for ip, a := range st.addrs {
		switch {
		case a.cert != nil && now.Before(a.cert.Leaf.NotAfter):
			st.want(ip, now)
		case !a.busy && now.After(a.retry):
			delete(st.addrs, ip)
		}
	}
	st.publish()
}

// end notes how an issuance went.
func (st *issuer) end(o outcome, now time.Time) {
	a := st.addrs[o.ip]
	if o.err == nil {
		a = address{cert: o.cert}
		st.p.log.Info("certificate for an address", "ip", o.ip, "expires", o.cert.Leaf.NotAfter)
	} else {
		wait := retryAfter(a.failures)
		a = address{cert: a.cert, err: o.err, failures: a.failures + 1, retry: now.Add(wait)}
		st.p.log.Warn("no certificate for an address", "ip", o.ip, "err", o.err, "retry_in", wait)
	}
	st.addrs[o.ip] = a
	st.publish()
}

// retryAfter returns the wait after a failure that followed so many others.
func retryAfter(failures int) time.Duration {
	return min(firstRetry<<min(failures, 8), maxRetry) // no shift overflows
}

// renewable reports whether less than a third of a certificate's life is left
// (DERP-156).
func renewable(cert *tls.Certificate, now time.Time) bool {
	life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
	return cert.Leaf.NotAfter.Sub(now) < life/3
}

// An issuance gets a certificate for one address.
type issuance struct {
	order orderer
	ip    netip.Addr
	ended chan<- outcome
}

// An outcome is how an issuance went.
type outcome struct {
	ip   netip.Addr
	cert *tls.Certificate
	err  error
}

func (i *issuance) run(ctx context.Context) error {
	inTime, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	cert, err := i.order.obtain(inTime, i.ip)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not issued in %v: %w", issueTimeout, err)
	}
	select {
	case i.ended <- outcome{i.ip, cert, err}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
