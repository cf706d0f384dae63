// Package derper is what benches need of the reference's relay: its command line,
// and a certificate for it that our relay can have as well.
package derper

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// Program is its package, for the module bench/tsnet.
const Program = "tailscale.com/cmd/derper"

// Serving begins the line of its log that says that it listens.
const Serving = "derper: serving on"

// An Identity is the IP address and the certificate of a relay.
type Identity struct {
	Pool *x509.CertPool // trusts the certificate

	dir, host string
	pin       string // CertName of the relay in a DERP map
}

// New writes a new certificate for an IP address into a folder.
func New(dir, host string) (*Identity, error) {
	cert, err := relay.SelfSigned(host)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	id := &Identity{Pool: x509.NewCertPool(), dir: dir, host: host, pin: derp.PinCertName(leaf.Raw)}
	id.Pool.AddCert(leaf)
	certFile, keyFile := Files(dir, host)
	return id, errors.Join(writePEM(certFile, "CERTIFICATE", leaf.Raw), writePEM(keyFile, "PRIVATE KEY", private))
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// Files returns the names of a certificate and its key, as derper wants them in
// manual mode.
func Files(dir, host string) (cert, key string) {
	return filepath.Join(dir, host+".crt"), filepath.Join(dir, host+".key")
}

// Args are derper's arguments, for a relay without STUN that listens at an
// address.
func (id *Identity) Args(addr string) []string {
	return []string{
		"-a", addr, "-c", filepath.Join(id.dir, "derper.json"),
		"-certmode", "manual", "-certdir", id.dir, "-hostname", id.host, "-http-port", "-1", "-stun=false",
	}
}

// Map is a DERP map of one region with the relay.
func (id *Identity) Map(port int) *netmap.DERPMap {
	n := &netmap.DERPNode{
		Name: "1a", RegionID: 1, HostName: id.host, IPv4: id.host, IPv6: "none",
		CertName: id.pin, DERPPort: port, STUNPort: -1,
	}
	region := &netmap.Region{RegionID: 1, RegionCode: "bench", RegionName: "bench", Nodes: []*netmap.DERPNode{n}}
	return &netmap.DERPMap{Regions: map[int]*netmap.Region{1: region}, OmitDefaultRegions: true}
}
