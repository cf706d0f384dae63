package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Time and bounds of certificates for addresses.
const (
	renewCheck   = time.Hour // between looks at what is to be renewed; DERP-156
	maxAddresses = 64        // that get a certificate; a host answers at few
	inboxSize    = 16        // handshakes that ask at once
)

// challengePath begins the URL paths of HTTP-01 challenges (RFC 8555 section
// 8.3).
const challengePath = "/.well-known/acme-challenge/"

// ipCerts is the Provider of certificates for the addresses at which clients
// reach the relay (DERP-156). They are issued on demand and renewed by Serve.
// Handshakes for a name go to the provider of the relay's name.
type ipCerts struct {
	named *hostCert // nil: the relay has no name
	order orderer
	log   *slog.Logger

	addrs  *actor.Cell[map[netip.Addr]address] // outlives a restart; replaced, never changed
	wanted chan netip.Addr                     // addresses that handshakes want
}

// An address is what is known of one of the relay's addresses.
type address struct {
	cert     *tls.Certificate // nil: none yet
	busy     bool             // an issuance is under way
	err      error            // why the last one failed; nil if it did not
	failures int              // in a row
	retry    time.Time        // not before this, after a failure
}

func newIPCerts(c ACMEConfig, named *hostCert) (*ipCerts, error) {
	o, err := newOrderer(c)
	if err != nil {
		return nil, err
	}
	return &ipCerts{
		named:  named,
		order:  o,
		log:    c.Logger,
		addrs:  actor.NewCell(map[netip.Addr]address{}),
		wanted: make(chan netip.Addr, inboxSize),
	}, nil
}

// GetCertificate returns the certificate for the address that the client has
// connected to. It never asks the authority for another: a client could name
// any (DERP-156).
func (p *ipCerts) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	local := localAddr(hello)
	if hello.ServerName != "" {
		asked, err := netip.ParseAddr(hello.ServerName)
		switch {
		case err != nil && p.named != nil:
			return p.named.GetCertificate(hello)
		case err != nil:
			return nil, fmt.Errorf("certs: client asks for %q, the relay has certificates for its addresses only", hello.ServerName)
		case asked.Unmap() != local:
			return nil, fmt.Errorf("certs: client of %v asks for %v", local, asked)
		}
	}
	if !local.IsGlobalUnicast() || local.IsPrivate() {
		return nil, fmt.Errorf("certs: client without server name at %v, an address that no public authority certifies", local)
	}
	ctx := hello.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return p.await(ctx, local)
}

// localAddr returns our address of the connection, invalid if it has none.
func localAddr(hello *tls.ClientHelloInfo) netip.Addr {
	if hello.Conn == nil {
		return netip.Addr{}
	}
	ap, _ := netip.ParseAddrPort(hello.Conn.LocalAddr().String())
	return ap.Addr().Unmap()
}

// await returns an address's certificate once there is one. All handshakes that
// wait share one issuance.
func (p *ipCerts) await(ctx context.Context, ip netip.Addr) (*tls.Certificate, error) {
	for {
		all, changed := p.addrs.Load()
		a, known := all[ip]
		switch now := time.Now(); {
		case a.cert != nil && now.Before(a.cert.Leaf.NotAfter):
			return a.cert, nil
		case now.Before(a.retry):
			return nil, fmt.Errorf("certs: no certificate for %v until %s: %w", ip, a.retry.Format(time.RFC3339), a.err)
		case !known && len(all) >= maxAddresses:
			return nil, fmt.Errorf("certs: no certificate for %v: %d other addresses have one", ip, len(all))
		}
		if !a.busy {
			select {
			case p.wanted <- ip:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// HTTPHandler answers the challenges for addresses, then those for the name.
func (p *ipCerts) HTTPHandler(fallback http.Handler) http.Handler {
	if p.named != nil {
		fallback = p.named.HTTPHandler(fallback)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, challengePath) && p.order.answer(w, r.URL.Path) {
			return
		}
		fallback.ServeHTTP(w, r)
	})
}

// NextProtos offers what the provider of the name does: addresses are validated
// over HTTP.
func (p *ipCerts) NextProtos() []string {
	if p.named != nil {
		return p.named.NextProtos()
	}
	return []string{http1}
}

// Reload does nothing: no operator replaces these certificates.
func (*ipCerts) Reload() error { return nil }

// String names the actor.
func (*ipCerts) String() string { return "certs.ipCerts" }

// Serve issues and renews certificates until ctx ends.
func (p *ipCerts) Serve(ctx context.Context) error { return actor.Run(ctx, p.serve) }

func (p *ipCerts) serve(ctx context.Context, g *actor.Group) error {
	if p.named != nil {
		g.Go(p.named.Serve)
	}
	st := newIssuer(p, g)
	tick := time.NewTicker(renewCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ip := <-p.wanted:
			st.want(ip, time.Now())
		case o := <-st.ended:
			st.end(o, time.Now())
		case <-tick.C:
			st.renew(time.Now())
		}
	}
}
