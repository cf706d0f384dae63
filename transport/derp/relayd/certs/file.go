package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Only the relay's user may look into the directory and its files (DERP-154).
const (
	dirMode  fs.FileMode = 0o700
	fileMode fs.FileMode = 0o600
)

// A pair is where a certificate with its chain, and its key, lie as PEM.
type pair struct{ crt, key string }

func pairIn(dir, name string) pair {
	return pair{crt: filepath.Join(dir, name+".crt"), key: filepath.Join(dir, name+".key")}
}

// load reads a certificate that is good for a host at this time.
func (p pair) load(host string, now time.Time) (*tls.Certificate, error) {
	crt, err := os.ReadFile(p.crt)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(p.key)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", p.crt, p.key, err)
	}
	if err := usable(cert.Leaf, host, now); err != nil {
		return nil, fmt.Errorf("%s: %w", p.crt, err)
	}
	return &cert, nil
}

// usable says why a certificate is not good for a host at this time.
func usable(leaf *x509.Certificate, host string, now time.Time) error {
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("certificate is not for %s: %w", host, err)
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("certificate is valid from %s to %s only, and this host's clock says %s", leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return nil
}

// store writes a certificate, and the directory for it. The key comes first: a
// certificate without its key would be useless.
func (p pair) store(cert *tls.Certificate) error {
	if err := os.MkdirAll(filepath.Dir(p.crt), dirMode); err != nil {
		return err
	}
	key, err := encodeKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer never fails
	}
	if err := writeFile(p.key, key); err != nil {
		return err
	}
	return writeFile(p.crt, chain.Bytes())
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// writeFile makes b the content of a file, all of it or nothing.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(fileMode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
