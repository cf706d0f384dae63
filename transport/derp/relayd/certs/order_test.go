package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccountKey: the account's key is made once, for its user only, in either
// form that is in use; what is no key is an error, not a new account.
func TestAccountKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	path := filepath.Join(dir, accountFile)
	made, err := accountKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", fi, err)
	}
	again, err := accountKey(path)
	if err != nil || !made.(*ecdsa.PrivateKey).Equal(again) {
		t.Errorf("the second start has another key: %v", err)
	}
	sec1, err := x509.MarshalECPrivateKey(made.(*ecdsa.PrivateKey)) // derper's form
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})))
	if other, err := accountKey(path); err != nil || !made.(*ecdsa.PrivateKey).Equal(other) {
		t.Errorf("the same key in another form: %v", err)
	}
	for _, text := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		write(t, path, text)
		if _, err := accountKey(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
