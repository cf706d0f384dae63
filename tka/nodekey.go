package tka

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed94491740/tsnode/key"
	"golang.org/x/crypto/blake2s"
)

// Kinds of signatures of node keys (SVC-148).
const (
	direct     = 1 // by a trusted key, of a node key
	rotation   = 2 // of a new node key, by the key that the nested signature names
	credential = 3 // by a trusted key, of a key that signs node keys: a signed auth key
)

// nodePrefix stands before a node key in a signature (control.md section 1).
const nodePrefix = "np"

// A nodeSignature says that a node key is to be trusted (SVC-148).
type nodeSignature struct {
	kind     uint8
	node     []byte         // the node key, prefixed; not in a credential
	keyID    []byte         // of the trusted key; not in a rotation
	sig      []byte         // of all other fields
	nested   *nodeSignature // of a rotation: what it goes back to
	wrapping []byte         // the key that may sign rotations of this signature
}

// parseNodeSignature reads a signature, and checks nothing but its form.
func parseNodeSignature(b []byte) (*nodeSignature, error) {
	s := new(nodeSignature)
	b = bytes.Clone(b)
	if err := read(b, s.read); err != nil {
		return nil, fmt.Errorf("signature of tailnet lock: %w", err)
	}
	if !bytes.Equal(s.encode(), b) {
		return nil, fmt.Errorf("signature of tailnet lock: %w", errNotCanonical)
	}
	return s, nil
}

func (s *nodeSignature) read(r *reader) {
	r.fields(func(field uint64) {
		switch field {
		case 1:
			s.kind = uint8(r.uint(math.MaxUint8))
		case 2:
			s.node = r.bytes()
		case 3:
			s.keyID = r.bytes()
		case 4:
			s.sig = r.bytes()
		case 5:
			s.nested = new(nodeSignature)
			s.nested.read(r)
		case 6:
			s.wrapping = r.bytes()
		default:
			r.unknown(field)
		}
	})
}

func (s *nodeSignature) encode() []byte { return s.append(nil) }

func (s *nodeSignature) append(b []byte) []byte {
	var w mapWriter
	w.uintField(1, uint64(s.kind))
	w.bytesField(2, s.node)
	w.bytesField(3, s.keyID)
	w.bytesField(4, s.sig)
	if s.nested != nil {
		w.field(5, s.nested.append)
	}
	w.bytesField(6, s.wrapping)
	return w.appendTo(b)
}

// digest is what the signature is made of: BLAKE2s-256 of all but itself.
func (s *nodeSignature) digest() []byte {
	bare := *s
	bare.sig = nil
	sum := blake2s.Sum256(bare.encode())
	return sum[:]
}

// rotationKey returns the key that may sign a rotation of this signature: its own
// or, of a rotation without, that of the one inside; nil for none.
func (s *nodeSignature) rotationKey() []byte {
	for ; s != nil; s = s.nested {
		if len(s.wrapping) > 0 || s.kind != rotation {
			return s.wrapping
		}
	}
	return nil
}

// origin returns the innermost signature, which a trusted key has made.
func (s *nodeSignature) origin() (*nodeSignature, error) {
	for s.kind == rotation {
		if s.nested == nil {
			return nil, errors.New("a rotation of nothing")
		}
		s = s.nested
	}
	switch {
	case s.kind != direct && s.kind != credential:
		return nil, fmt.Errorf("signature of kind %d", s.kind)
	case len(s.keyID) == 0:
		return nil, errors.New("no key is named")
	case s.nested != nil:
		return nil, fmt.Errorf("a signature inside one of kind %d", s.kind)
	}
	return s, nil
}

var errWrong = errors.New("the signature is wrong")

// verify checks the signature of a node key, prefixed, when origin was made by k.
func (s *nodeSignature) verify(node []byte, k *trustedKey) error {
	if s.kind != credential && !bytes.Equal(s.node, node) {
		return errors.New("the signature is of another node key")
	}
	if s.kind != rotation {
		if !k.verify(s.digest(), s.sig) {
			return errWrong
		}
		return nil
	}
	by := s.nested.rotationKey()
	if len(by) != keySize {
		return errors.New("no key may sign a rotation")
	}
	if !ed25519.Verify(by, s.digest(), s.sig) {
		return errWrong
	}
	if s.nested.kind != credential && !isNode(s.nested.node) {
		return errors.New("a rotation of no node key")
	}
	return s.nested.verify(s.nested.node, k)
}

// isNode reports whether b is a node key, prefixed.
func isNode(b []byte) bool {
	return len(b) == len(nodePrefix)+key.Size && string(b[:len(nodePrefix)]) == nodePrefix
}

func prefixed(k key.NodePublic) []byte {
	raw := k.Raw()
	return slices.Concat([]byte(nodePrefix), raw[:])
}

// A lineage is where a valid signature comes from.
type lineage struct {
	before [][]byte // node keys, prefixed, that a rotation has replaced; newest first
	origin *nodeSignature
}

// Verify checks that the signature of a node key is valid: it goes back to a key
// that is trusted now.
func (a *Authority) Verify(node key.NodePublic, sig []byte) error {
	_, err := a.trace(node, sig)
	return err
}

func (a *Authority) trace(node key.NodePublic, sig []byte) (l lineage, err error) {
	s, err := parseNodeSignature(sig)
	if err != nil {
		return l, err
	}
	if s.kind == credential {
		return l, errors.New("the signature is of a key that signs, not of a node key")
	}
	if l.origin, err = s.origin(); err != nil {
		return l, err
	}
	i := a.state.find(l.origin.keyID)
	if i < 0 {
		return l, errors.New("the signature is by a key that is not trusted")
	}
	if err := s.verify(prefixed(node), &a.state.keys[i]); err != nil {
		return l, err
	}
	l.before, err = s.replaced()
	return l, err
}

// replaced returns the node keys within a rotation, newest first.
func (s *nodeSignature) replaced() (keys [][]byte, err error) {
	for s = s.nested; s != nil; s = s.nested {
		if len(s.node) == 0 {
			continue
		}
		if !isNode(s.node) {
			return nil, errors.New("a rotation of no node key")
		}
		keys = append(keys, s.node)
	}
	return keys, nil
}
