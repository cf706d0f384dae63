package wireguard

import (
	"crypto/cipher"
	"crypto/ecdh"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// The functions of doc/protocol/wireguard.md section 1.3. None allocates, apart
// from DH and the making of an AEAD. Note that WireGuard uses both BLAKE2s' own
// keyed mode (MACs, cookie.go) and HMAC over BLAKE2s (key derivation, here).

// A digest is a hash, a chaining key or a key.
type digest = [blake2s.Size]byte

// initialC is HASH(construction), initialH is HASH(initialC || identifier)
// (paper section 5.4.2). They are constants, so that nothing is computed when
// the program starts.
var (
	initialC = digest{
		0x60, 0xe2, 0x6d, 0xae, 0xf3, 0x27, 0xef, 0xc0, 0x2e, 0xc3, 0x35, 0xe2, 0xa0, 0x25, 0xd2, 0xd0,
		0x16, 0xeb, 0x42, 0x06, 0xf8, 0x72, 0x77, 0xf5, 0x2d, 0x38, 0xd1, 0x98, 0x8b, 0x78, 0xcd, 0x36,
	}
	initialH = digest{
		0x22, 0x11, 0xb3, 0x61, 0x08, 0x1a, 0xc5, 0x66, 0x69, 0x12, 0x43, 0xdb, 0x45, 0x8a, 0xd5, 0x32,
		0x2d, 0x9c, 0x6c, 0x66, 0x22, 0x93, 0xe8, 0xb7, 0x0e, 0xe1, 0x9c, 0x65, 0xba, 0x07, 0x9e, 0xf3,
	}
)

// Names the initial values are made from (paper section 5.4.2).
const (
	construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	identifier   = "WireGuard v1 zx2c4 Jason@zx2c4.com"
)

// maxHashed is the longest data that is ever hashed or mixed: a sealed static
// key.
const maxHashed = 32 + tagSize

// hmacHash returns HMAC(key, data) over BLAKE2s-256 (RFC 2104).
func hmacHash(key *digest, data []byte) (sum digest) {
	var inner [blake2s.BlockSize + maxHashed]byte
	var outer [blake2s.BlockSize + blake2s.Size]byte
	for i := range blake2s.BlockSize {
		inner[i], outer[i] = 0x36, 0x5c
	}
	for i, k := range key {
		inner[i] ^= k
		outer[i] ^= k
	}
	n := copy(inner[blake2s.BlockSize:], data)
	sum = blake2s.Sum256(inner[:blake2s.BlockSize+n])
	copy(outer[blake2s.BlockSize:], sum[:])
	sum = blake2s.Sum256(outer[:])
	clear(inner[:])
	clear(outer[:])
	return sum
}

// kdf fills out with the outputs of KDFn(c, input), n = len(out) (paper section
// 5.4). An output may be where c points to.
func kdf(c *digest, input []byte, out ...*digest) {
	var block [blake2s.Size + 1]byte
	prk := hmacHash(c, input)
	t := block[:0]
	for i, o := range out {
		t = append(t, byte(i+1))
		*o = hmacHash(&prk, t)
		t = append(block[:0], o[:]...)
	}
	clear(prk[:])
	clear(block[:])
}

// A symmetric is the running state of a handshake: chaining key and transcript
// hash.
type symmetric struct{ C, H digest }

// start returns the state after row 1: the transcript begins with the
// responder's static key.
func start(responder *[32]byte) symmetric {
	s := symmetric{C: initialC, H: initialH}
	s.mixHash(responder[:])
	return s
}

// mixHash sets H = HASH(H || data).
func (s *symmetric) mixHash(data []byte) {
	var b [blake2s.Size + maxHashed]byte
	copy(b[:], s.H[:])
	n := copy(b[blake2s.Size:], data)
	s.H = blake2s.Sum256(b[:blake2s.Size+n])
}

// mixKey sets C = KDF1(C, input).
func (s *symmetric) mixKey(input []byte) { kdf(&s.C, input, &s.C) }

// mixKey2 sets C and returns a key: (C, k) = KDF2(C, input).
func (s *symmetric) mixKey2(input []byte) (k digest) {
	kdf(&s.C, input, &s.C, &k)
	return k
}

// zeroNonce is the nonce of the AEADs of a handshake: each key is used once.
var zeroNonce [chacha20poly1305.NonceSize]byte

// seal encrypts plaintext to dst under k with H as additional data and mixes the
// result. It consumes k.
func (s *symmetric) seal(dst []byte, k *digest, plaintext []byte) {
	newAEAD(k).Seal(dst[:0], zeroNonce[:], plaintext, s.H[:])
	s.mixHash(dst)
}

// open reverses seal; nothing is mixed when it fails.
func (s *symmetric) open(dst []byte, k *digest, sealed []byte) bool {
	if _, err := newAEAD(k).Open(dst[:0], zeroNonce[:], sealed, s.H[:]); err != nil {
		return false
	}
	s.mixHash(sealed)
	return true
}

// erase overwrites the state (WG-15).
func (s *symmetric) erase() { *s = symmetric{} }

// newAEAD returns ChaCha20-Poly1305 (RFC 8439) under k and erases k.
func newAEAD(k *digest) cipher.AEAD {
	a, err := chacha20poly1305.New(k[:])
	if err != nil {
		panic("wireguard: " + err.Error()) // the length is right, and New has asked about FIPS mode
	}
	clear(k[:])
	return a
}

// dh returns X25519(private, public); false when the result is all zero, which
// MUST be rejected (WG-05; RFC 7748 section 6.1): crypto/ecdh does so.
func dh(private *ecdh.PrivateKey, public *[32]byte) (shared [32]byte, ok bool) {
	p, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return shared, false
	}
	s, err := private.ECDH(p)
	if err != nil {
		return shared, false
	}
	copy(shared[:], s)
	clear(s)
	return shared, true
}
