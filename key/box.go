package key

import (
	"crypto/rand"

	"golang.org/x/crypto/nacl/box"
)

// boxNonceSize is the length of the random nonce in front of a sealed box.
const boxNonceSize = 24

// BoxOverhead is how much longer a sealed box is than its plaintext: nonce and
// tag (DERP-04).
const BoxOverhead = boxNonceSize + box.Overhead

// SealTo encrypts msg to a peer in a NaCl box, with a fresh random nonce in
// front (DERP-04).
func (k NodePrivate) SealTo(to NodePublic, msg []byte) []byte {
	var nonce [boxNonceSize]byte
	rand.Read(nonce[:])
	return box.Seal(nonce[:], msg, &nonce, &to.k, &k.k)
}

// OpenFrom decrypts a box that from sealed to us; ok is false when it is too
// short or was not made by from.
func (k NodePrivate) OpenFrom(from NodePublic, sealed []byte) (msg []byte, ok bool) {
	if len(sealed) < BoxOverhead || k.IsZero() || from.IsZero() {
		return nil, false
	}
	nonce := [boxNonceSize]byte(sealed)
	return box.Open(nil, sealed[boxNonceSize:], &nonce, &from.k, &k.k)
}

// A DiscoShared is the key agreed between two disco keys. Making one costs an
// X25519 multiplication; sealing and opening with it is cheap, so callers keep
// one per peer (PATH-04).
type DiscoShared struct {
	_ notComparable
	k [Size]byte
}

// Shared returns the key agreed with a peer's disco key, which must not be
// zero (PATH-05).
func (k DiscoPrivate) Shared(peer DiscoPublic) (s DiscoShared) {
	box.Precompute(&s.k, &peer.k, &k.k)
	return s
}

// Seal appends nonce and box of msg to dst.
func (s *DiscoShared) Seal(dst, msg []byte) []byte {
	var nonce [boxNonceSize]byte
	rand.Read(nonce[:])
	return box.SealAfterPrecomputation(append(dst, nonce[:]...), msg, &nonce, &s.k)
}

// Open decrypts what the peer sealed with the same shared key.
func (s *DiscoShared) Open(sealed []byte) (msg []byte, ok bool) {
	if len(sealed) < BoxOverhead {
		return nil, false
	}
	nonce := [boxNonceSize]byte(sealed)
	return box.OpenAfterPrecomputation(nil, sealed[boxNonceSize:], &nonce, &s.k)
}
