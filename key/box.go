package key

import (
	"crypto/ecdh"
	"crypto/rand"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/salsa20/salsa"
)

// boxNonceSize is the length of the random nonce in front of a sealed box.
const boxNonceSize = 24

// BoxOverhead is how much longer a sealed box is than its plaintext: nonce and
// tag (DERP-04).
const BoxOverhead = boxNonceSize + secretbox.Overhead

// SealTo encrypts msg to a peer in a NaCl box, with a fresh random nonce in
// front (DERP-04).
func (k NodePrivate) SealTo(to NodePublic, msg []byte) []byte {
	shared := agree(&k.k, &to.k)
	return seal(nil, msg, &shared)
}

// OpenFrom decrypts a box that from sealed to us; ok is false when it is too
// short or was not made by from.
func (k NodePrivate) OpenFrom(from NodePublic, sealed []byte) (msg []byte, ok bool) {
	if len(sealed) < BoxOverhead || k.IsZero() || from.IsZero() {
		return nil, false
	}
	shared := agree(&k.k, &from.k)
	return open(sealed, &shared)
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
func (k DiscoPrivate) Shared(peer DiscoPublic) DiscoShared {
	return DiscoShared{k: agree(&k.k, &peer.k)}
}

// Seal appends nonce and box of msg to dst.
func (s *DiscoShared) Seal(dst, msg []byte) []byte { return seal(dst, msg, &s.k) }

// Open decrypts what the peer sealed with the same shared key.
func (s *DiscoShared) Open(sealed []byte) (msg []byte, ok bool) {
	if len(sealed) < BoxOverhead {
		return nil, false
	}
	return open(sealed, &s.k)
}

// seal appends a random nonce and the box of msg to dst.
func seal(dst, msg []byte, shared *[Size]byte) []byte {
	var nonce [boxNonceSize]byte
	rand.Read(nonce[:])
	return secretbox.Seal(append(dst, nonce[:]...), msg, &nonce, shared)
}

// open decrypts what seal made, of BoxOverhead bytes at least.
func open(sealed []byte, shared *[Size]byte) (msg []byte, ok bool) {
	nonce := [boxNonceSize]byte(sealed)
	return secretbox.Open(nil, sealed[boxNonceSize:], &nonce, shared)
}

// agree returns the key of a NaCl box: the X25519 secret of the two keys, hashed
// ("Cryptography in NaCl", sections 5 and 7; package nacl/box would link BLAKE2b
// for the boxes of senders without a name). With a public key of low order, the
// secret is zero.
func agree(private, public *[Size]byte) (shared [Size]byte) {
	if secret, err := x25519(private, public); err == nil {
		copy(shared[:], secret)
		clear(secret)
	}
	salsa.HSalsa20(&shared, new([16]byte), &shared, &salsa.Sigma)
	return shared
}

func x25519(private, public *[Size]byte) ([]byte, error) {
	own, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, err
	}
	peer, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return nil, err
	}
	return own.ECDH(peer)
}
