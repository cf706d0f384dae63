package tka

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/seed94491740/tsnode/key"
)

// maxRotations is how many node keys a signature to be rotated may go back to:
// one level more is what all nodes still read (maxDepth).
const maxRotations = maxDepth - 1

// Rotate returns a signature of a new node key that goes back to one of an older
// key, and is made by this node's lock key. The older signature must have named
// that key, or no node accepts the new one.
func Rotate(lock key.LockPrivate, node key.NodePublic, old []byte) ([]byte, error) {
	s, err := parseNodeSignature(old)
	if err != nil {
		return nil, err
	}
	if string(s.node) == string(prefixed(node)) {
		return old, nil
	}
	return rotate(lock.Sign, prefixed(node), shortened(lock.Sign, s)).encode(), nil
}

// rotate returns a rotation of s to a node key, prefixed.
func rotate(sign func([]byte) []byte, node []byte, s *nodeSignature) *nodeSignature {
	r := &nodeSignature{kind: rotation, node: node, nested: s}
	r.sig = sign(r.digest())
	return r
}

// shortened returns s without its oldest rotations if it has too many.
func shortened(sign func([]byte) []byte, s *nodeSignature) *nodeSignature {
	keys, origin := [][]byte{s.node}, s
	for origin.kind == rotation && origin.nested != nil {
		if origin = origin.nested; len(origin.node) > 0 {
			keys = append(keys, origin.node)
		}
	}
	if len(keys) <= maxRotations {
		return s
	}
	s = origin
	for i := maxRotations - 2; i >= 0; i-- {
		s = rotate(sign, keys[i], s)
	}
	return s
}

// A Credential comes with an auth key that was signed beforehand: it signs the
// keys of nodes that join with it. It never prints.
type Credential struct {
	signature *nodeSignature
	private   ed25519.PrivateKey
}

// credentialMark separates an auth key from its credential (SVC-149).
const credentialMark = "--TL"

// SplitAuthKey returns the part of an auth key that is sent, and the credential
// behind it; nil for none. Its errors do not repeat the key.
func SplitAuthKey(text string) (authKey string, c *Credential, err error) {
	authKey, rest, ok := strings.Cut(text, credentialMark)
	if !ok {
		return authKey, nil, nil
	}
	signature, private, ok := strings.Cut(rest, "-")
	if !ok {
		return authKey, nil, errors.New("auth key of a locked tailnet: the part after " + credentialMark + " is incomplete")
	}
	sig, err := base64.RawStdEncoding.DecodeString(signature)
	if err != nil {
		return authKey, nil, errors.New("auth key of a locked tailnet: its signature is not base64")
	}
	k, err := base64.RawStdEncoding.DecodeString(private)
	if err != nil || len(k) != ed25519.PrivateKeySize {
		return authKey, nil, errors.New("auth key of a locked tailnet: its private key is malformed")
	}
	s, err := parseNodeSignature(sig)
	if err != nil {
		return authKey, nil, fmt.Errorf("auth key of a locked tailnet: %w", err)
	}
	if s.kind != credential {
		return authKey, nil, fmt.Errorf("auth key of a locked tailnet: signature of kind %d, want %d", s.kind, credential)
	}
	return authKey, &Credential{s, k}, nil
}

// Sign returns a signature of a node key.
func (c *Credential) Sign(node key.NodePublic) []byte {
	sign := func(digest []byte) []byte { return ed25519.Sign(c.private, digest) }
	return rotate(sign, prefixed(node), c.signature).encode()
}

// String shows nothing of the credential.
func (*Credential) String() string { return "tka.Credential" }

// GoString shows nothing of the credential.
func (*Credential) GoString() string { return "tka.Credential" }
