// Package certs gets the TLS certificates of a relay: from files, which may be
// replaced while it runs, or from an ACME certificate authority, for the
// relay's name and for the addresses it is reached at.
//
// It owns the certificates, their files and their renewal. Listeners and the
// MetaCert that is added to each handshake are the relay's: a certificate that
// a Provider returns is shared, and whoever adds to it makes a copy first
// (DERP-107).
//
// Source: doc/protocol/derp.md section 14.3; RFC 8555 (ACME), RFC 8738 (ACME for
// IP addresses).
package certs

import (
	"context"
	"crypto/tls"
	"net/http"
)

// A Provider has the certificates of one relay.
type Provider interface {
	// GetCertificate returns the certificate for a handshake, as
	// tls.Config.GetCertificate does. It is shared: nothing may modify it.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// HTTPHandler returns what is to serve on port 80: the answers to the
	// authority's challenges, and fallback for everything else.
	HTTPHandler(fallback http.Handler) http.Handler

	// NextProtos are the protocols a listener has to offer, HTTP/1.1 first:
	// HTTP/2 cannot be upgraded to DERP.
	NextProtos() []string

	// Reload reads again what an operator may have replaced. If that is bad, the
	// error says why and the old certificate stays.
	Reload() error

	// Serve does what goes on beside the handshakes until ctx ends. Without it
	// no certificate is issued for an address.
	Serve(ctx context.Context) error
}

const http1 = "http/1.1" // ALPN protocol ID; RFC 7301 section 6
