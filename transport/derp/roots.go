package derp

import (
	"crypto/x509"
	_ "embed" // the certificates
	"sync"
)

// The roots of Let's Encrypt, whose certificates most relays have: a machine
// without any roots of its own, as in a bare container, reaches them too
// (DERP-127).
var (
	//go:embed roots/isrg-root-x1.pem
	isrgRootX1 []byte
	//go:embed roots/isrg-root-x2.pem
	isrgRootX2 []byte
)

// letsEncrypt returns the built-in roots.
var letsEncrypt = sync.OnceValue(func() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(isrgRootX1)
	pool.AppendCertsFromPEM(isrgRootX2)
	return pool
})
