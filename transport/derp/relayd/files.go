package relayd

import (
	"crypto/x509"
	"fmt"
	"os"

	"github.com/seed94491740/tsnode/key"
)

// ReadMeshKey reads the mesh key of a region from a file.
func ReadMeshKey(file string) (key.Mesh, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return key.Mesh{}, err
	}
	k, err := key.ParseMesh(string(b))
	if err != nil {
		return k, fmt.Errorf("%s: %w; make a file with: openssl rand -hex 32", file, err)
	}
	return k, nil
}

// ReadRoots returns the certificates that this machine trusts and those of a PEM
// file.
func ReadRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil { // this machine has none
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}
