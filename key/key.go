// Package key holds the key types of a tailnet: machine, node, disco,
// challenge and tailnet-lock keys as distinct Go types, so that one can never
// be passed where another belongs.
//
// It owns generation, the text forms and the two uses that need a private key
// outside its own protocol: X25519 agreement and NaCl boxes. Handshakes and
// packet encryption are left to the protocol packages.
//
// A private key never prints: String, GoString, Format and slog all show the
// type's name and nothing of the key, and encoding one as JSON fails. The text
// form that carries the key is only reached by calling SecretText on purpose.
//
// Source: doc/protocol/control.md section 1 (CTL-01, CTL-02, CTL-04) and
// doc/protocol/derp.md section 3 (DERP-03, DERP-04).
package key

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
)

// Size is the length in bytes of every X25519 key, private or public.
const Size = 32

// The five public key types are 32 raw bytes and comparable, so they serve as
// map keys. Their zero value means "absent" (control.md section 1).
type (
	// A MachinePublic names an installation to a control server; it also names
	// the control server itself. Text form "mkey:" and 64 hex digits.
	MachinePublic struct{ k [Size]byte }

	// A NodePublic names a node on the tailnet: its WireGuard static key and its
	// DERP address. Text form "nodekey:" and 64 hex digits.
	NodePublic struct{ k [Size]byte }

	// A DiscoPublic names one run of a node in path discovery. Text form
	// "discokey:" and 64 hex digits.
	DiscoPublic struct{ k [Size]byte }

	// A ChallengePublic is the key a control server offers for one connection.
	// Text form "chalpub:" and 64 hex digits.
	ChallengePublic struct{ k [Size]byte }
)

// The private key types. The zero value means "absent" and is never used for a
// key agreement.
type (
	// A MachinePrivate is an installation's permanent key and the Noise static
	// key towards the control server. Text form "privkey:" and 64 hex digits.
	MachinePrivate struct {
		_ notComparable
		k [Size]byte
	}

	// A NodePrivate is renewed with each login. Text form "privkey:" and 64 hex
	// digits.
	NodePrivate struct {
		_ notComparable
		k [Size]byte
	}

	// A DiscoPrivate lives as long as the process and has no text form.
	DiscoPrivate struct {
		_ notComparable
		k [Size]byte
	}

	// A ChallengePrivate is held by a control server for one connection and has
	// no text form.
	ChallengePrivate struct {
		_ notComparable
		k [Size]byte
	}
)

// notComparable keeps == off private keys: they are compared in constant time
// with Equal.
type notComparable [0]func()

// NewMachine returns a new random machine key.
func NewMachine() MachinePrivate { return MachinePrivate{k: newX25519()} }

// NewNode returns a new random node key.
func NewNode() NodePrivate { return NodePrivate{k: newX25519()} }

// NewDisco returns a new random disco key.
func NewDisco() DiscoPrivate { return DiscoPrivate{k: newX25519()} }

// NewChallenge returns a new random challenge key.
func NewChallenge() ChallengePrivate { return ChallengePrivate{k: newX25519()} }

// newX25519 makes a private key, clamped when generated as RFC 7748 section 5
// describes and CTL-02 requires.
func newX25519() (k [Size]byte) {
	rand.Read(k[:]) // never fails: crypto/rand ends the process instead
	clamp(&k)
	return k
}

func clamp(k *[Size]byte) {
	k[0] &= 0xf8
	k[31] = k[31]&0x7f | 0x40
}

// MachinePublicFromRaw returns the key with the given raw bytes.
func MachinePublicFromRaw(b [Size]byte) MachinePublic { return MachinePublic{b} }

// NodePublicFromRaw returns the key with the given raw bytes.
func NodePublicFromRaw(b [Size]byte) NodePublic { return NodePublic{b} }

// DiscoPublicFromRaw returns the key with the given raw bytes.
func DiscoPublicFromRaw(b [Size]byte) DiscoPublic { return DiscoPublic{b} }

// ChallengePublicFromRaw returns the key with the given raw bytes.
func ChallengePublicFromRaw(b [Size]byte) ChallengePublic { return ChallengePublic{b} }

// MachinePrivateFromRaw returns the key with the given raw bytes, which it
// takes as they are: X25519 clamps on use.
func MachinePrivateFromRaw(b [Size]byte) MachinePrivate { return MachinePrivate{k: b} }

// NodePrivateFromRaw returns the key with the given raw bytes.
func NodePrivateFromRaw(b [Size]byte) NodePrivate { return NodePrivate{k: b} }

// DiscoPrivateFromRaw returns the key with the given raw bytes.
func DiscoPrivateFromRaw(b [Size]byte) DiscoPrivate { return DiscoPrivate{k: b} }

// Raw returns the 32 bytes of the key.
func (k MachinePublic) Raw() [Size]byte { return k.k }

// Raw returns the 32 bytes of the key.
func (k NodePublic) Raw() [Size]byte { return k.k }

// Raw returns the 32 bytes of the key.
func (k DiscoPublic) Raw() [Size]byte { return k.k }

// Raw returns the 32 bytes of the key.
func (k ChallengePublic) Raw() [Size]byte { return k.k }

// Raw returns the 32 secret bytes, for a Noise handshake.
func (k MachinePrivate) Raw() [Size]byte { return k.k }

// Raw returns the 32 secret bytes, for a WireGuard handshake.
func (k NodePrivate) Raw() [Size]byte { return k.k }

// IsZero reports whether the key is absent.
func (k MachinePublic) IsZero() bool { return k == MachinePublic{} }

// IsZero reports whether the key is absent.
func (k NodePublic) IsZero() bool { return k == NodePublic{} }

// IsZero reports whether the key is absent.
func (k DiscoPublic) IsZero() bool { return k == DiscoPublic{} }

// IsZero reports whether the key is absent.
func (k ChallengePublic) IsZero() bool { return k == ChallengePublic{} }

// IsZero reports whether the key is absent.
func (k MachinePrivate) IsZero() bool { return isZero(&k.k) }

// IsZero reports whether the key is absent.
func (k NodePrivate) IsZero() bool { return isZero(&k.k) }

// IsZero reports whether the key is absent.
func (k DiscoPrivate) IsZero() bool { return isZero(&k.k) }

// IsZero reports whether the key is absent.
func (k ChallengePrivate) IsZero() bool { return isZero(&k.k) }

func isZero(k *[Size]byte) bool {
	var zero [Size]byte
	return subtle.ConstantTimeCompare(k[:], zero[:]) == 1
}

// Equal compares in constant time.
func (k MachinePrivate) Equal(o MachinePrivate) bool { return equal(&k.k, &o.k) }

// Equal compares in constant time.
func (k NodePrivate) Equal(o NodePrivate) bool { return equal(&k.k, &o.k) }

// Equal compares in constant time.
func (k DiscoPrivate) Equal(o DiscoPrivate) bool { return equal(&k.k, &o.k) }

func equal(a, b *[Size]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// Public returns the public half; the zero key's public half is zero.
func (k MachinePrivate) Public() MachinePublic { return MachinePublic{public(&k.k)} }

// Public returns the public half; the zero key's public half is zero.
func (k NodePrivate) Public() NodePublic { return NodePublic{public(&k.k)} }

// Public returns the public half; the zero key's public half is zero.
func (k DiscoPrivate) Public() DiscoPublic { return DiscoPublic{public(&k.k)} }

// Public returns the public half; the zero key's public half is zero.
func (k ChallengePrivate) Public() ChallengePublic { return ChallengePublic{public(&k.k)} }

func public(k *[Size]byte) (p [Size]byte) {
	if isZero(k) {
		return p
	}
	priv, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil { // only a length other than 32 is refused
		return p
	}
	copy(p[:], priv.PublicKey().Bytes())
	return p
}

// Less orders node keys by their bytes, for tables that need an order.
func (k NodePublic) Less(o NodePublic) bool { return string(k.k[:]) < string(o.k[:]) }
