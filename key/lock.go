package key

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"strings"
)

const (
	lockPublicPrefix    = "nlpub:"
	lockPublicPrefixCLI = "tlpub:" // also accepted: what user interfaces show
	lockPrivatePrefix   = "nlpriv:"
)

// A LockPublic is a tailnet-lock verification key (Ed25519). Text form "nlpub:"
// and 64 hex digits; "tlpub:" is read as well.
type LockPublic struct{ k [ed25519.PublicKeySize]byte }

// A LockPrivate is a tailnet-lock signing key (Ed25519), kept per
// installation. Text form "nlpriv:" and 128 hex digits: seed, then public key.
type LockPrivate struct {
	_ notComparable
	k [ed25519.PrivateKeySize]byte
}

// NewLock returns a new random tailnet-lock key.
func NewLock() (k LockPrivate) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("key: crypto/rand: %v", err)) // documented never to fail
	}
	copy(k.k[:], priv)
	return k
}

// Public returns the verification key; that of the zero key is zero.
func (k LockPrivate) Public() (p LockPublic) {
	copy(p.k[:], k.k[ed25519.SeedSize:])
	return p
}

// IsZero reports whether the key is absent.
func (k LockPrivate) IsZero() bool {
	var zero [ed25519.PrivateKeySize]byte
	return subtle.ConstantTimeCompare(k.k[:], zero[:]) == 1
}

// IsZero reports whether the key is absent.
func (k LockPublic) IsZero() bool { return k == LockPublic{} }

// SecretText returns the text form, for the state store only.
func (k LockPrivate) SecretText() string {
	return string(appendText(nil, lockPrivatePrefix, k.k[:]))
}

// MarshalText always fails: see SecretText.
func (k LockPrivate) MarshalText() ([]byte, error) { return nil, errSecret }

// UnmarshalText reads the secret text form; its errors do not repeat it.
func (k *LockPrivate) UnmarshalText(b []byte) error {
	var n LockPrivate
	if err := parseText(n.k[:], lockPrivatePrefix, b); err != nil {
		return err
	}
	*k = n
	return nil
}

// MarshalText returns the text form.
func (k LockPublic) MarshalText() ([]byte, error) {
	return appendText(nil, lockPublicPrefix, k.k[:]), nil
}

// UnmarshalText reads the text form, also with the prefix "tlpub:".
func (k *LockPublic) UnmarshalText(b []byte) error {
	if strings.HasPrefix(string(b), lockPublicPrefixCLI) {
		return parseText(k.k[:], lockPublicPrefixCLI, b)
	}
	return parseText(k.k[:], lockPublicPrefix, b)
}

// String returns the text form.
func (k LockPublic) String() string { return string(appendText(nil, lockPublicPrefix, k.k[:])) }

// CLIString returns the form that user interfaces show, with the prefix "tlpub:".
func (k LockPublic) CLIString() string {
	return string(appendText(nil, lockPublicPrefixCLI, k.k[:]))
}

// Sign returns the Ed25519 signature of a digest (SVC-148).
func (k LockPrivate) Sign(digest []byte) []byte { return ed25519.Sign(k.k[:], digest) }
