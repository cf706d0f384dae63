package tka_test

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"

	"tailscale.com/tka"
	"tailscale.com/types/key"

	ourkey "github.com/seed94491740/tsnode/key"
)

// nodeBytes is a node key as signatures have it.
func nodeBytes(k key.NodePublic) []byte {
	b, err := k.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return b
}

// newNodeKey returns a random node key.
func newNodeKey(r *rand.Rand) key.NodePublic {
	var k key.NodePublic
	if err := k.UnmarshalBinary(append([]byte("np"), l32(r)...)); err != nil {
		panic(err)
	}
	return k
}

// ourNodeKey is k as our type.
func ourNodeKey(k key.NodePublic) ourkey.NodePublic {
	b, err := k.MarshalBinary() // "np" and the key
	if err != nil {
		panic(err)
	}
	return ourkey.NodePublicFromRaw([32]byte(b[2:]))
}

// signature returns a random signature of a node key, with up to 17 rotations;
// more often than not it is valid.
func (l *lockTailnet) signature(node key.NodePublic) *tka.NodeKeySignature {
	lock := ed25519.NewKeyFromSeed(l32(l.rand))
	rotations := []int{0, 0, 1, 1, 2, 3, 14, 15, 16}[l.rand.IntN(9)]
	s := l.origin(node, lock, rotations > 0)
	for i := range rotations {
		of := newNodeKey(l.rand)
		if i == rotations-1 {
			of = node
		}
		r := &tka.NodeKeySignature{SigKind: tka.SigRotation, Pubkey: nodeBytes(of), Nested: s}
		by := lock
		if l.rand.IntN(4) == 0 {
			lock = ed25519.NewKeyFromSeed(l32(l.rand))
			r.WrappingPubkey = lock.Public().(ed25519.PublicKey)
		}
		l.spoilSignature(r)
		digest := r.SigHash()
		r.Signature = ed25519.Sign(by, digest[:])
		s = r
	}
	return s
}

// origin returns a signature by one of the people.
func (l *lockTailnet) origin(node key.NodePublic, lock ed25519.PrivateKey, rotated bool) *tka.NodeKeySignature {
	person := l.rand.IntN(len(l.people))
	s := &tka.NodeKeySignature{
		SigKind: tka.SigDirect, KeyID: l.public(person), Pubkey: nodeBytes(node), WrappingPubkey: lock.Public().(ed25519.PublicKey),
	}
	switch {
	case rotated && l.rand.IntN(2) == 0:
		s.SigKind, s.Pubkey = tka.SigCredential, nil
	case rotated:
		s.Pubkey = nodeBytes(newNodeKey(l.rand))
	}
	l.spoilSignature(s)
	digest := s.SigHash()
	s.Signature = ed25519.Sign(l.people[person], digest[:])
	return s
}

// spoilSignature makes one of six wrong, before it is signed.
func (l *lockTailnet) spoilSignature(s *tka.NodeKeySignature) {
	switch l.rand.IntN(48) {
	case 0:
		s.SigKind = tka.SigKind(l.rand.IntN(5))
	case 1:
		s.Pubkey = s.Pubkey[:len(s.Pubkey)/2]
	case 2:
		s.KeyID = nil
	case 3:
		s.WrappingPubkey = nil
	case 4:
		s.Nested = nil
	case 5:
		s.WrappingPubkey = []byte{1, 2, 3}
	case 6:
		s.Nested = &tka.NodeKeySignature{SigKind: tka.SigDirect}
	case 7:
		s.Pubkey = []byte("no node key")
	}
}

// verify has both judge a signature.
func (l *lockTailnet) verify(node key.NodePublic, sig []byte) (valid bool) {
	l.t.Helper()
	err := l.ours.Verify(ourNodeKey(node), sig)
	var s tka.NodeKeySignature
	if s.Unserialize(sig) != nil || !bytes.Equal(s.Serialize(), sig) {
		if err == nil {
			l.t.Errorf("accepted, the reference cannot read it or writes it in another way: %x", sig)
		}
		return false
	}
	if theirErr := l.theirs.NodeKeyAuthorized(node, sig); (err == nil) != (theirErr == nil) {
		l.t.Fatalf("%v; the reference: %v: %x", err, theirErr, sig)
	}
	return err == nil
}
