package derper

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
)

// TestIdentity: a relay with the files is trusted, and the map leads to it.
func TestIdentity(t *testing.T) {
	const host = "192.0.2.1"
	dir := t.TempDir()
	id, err := New(dir, host)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(Files(dir, host))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: id.Pool}); err != nil {
		t.Error(err)
	}
	n := id.Map(443).Regions[1].Nodes[0]
	if n.IPv4 != host || n.DERPPort != 443 || n.CertName == "" {
		t.Errorf("relay on the map: %+v", n)
	}
	if args := id.Args("192.0.2.1:443"); !slices.Contains(args, host) || !slices.Contains(args, dir) {
		t.Errorf("arguments %q", args)
	}
	if _, err := New(dir+"/none", host); err == nil {
		t.Error("wrote into a folder that is not there")
	}
}
