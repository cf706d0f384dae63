package wireguard

import (
	"crypto/cipher"
	"crypto/ecdh"
	"errors"
	"fmt"

	"github.com/seed94491740/tsnode/key"
)

// Errors of a handshake. They say nothing about keys; callers count them.
var (
	errAuthentic = errors.New("wireguard: message does not authenticate")
	errLowOrder  = errors.New("wireguard: public key has no shared secret")
)

// An identity is our static key with what is derived from it alone.
type identity struct {
	private *ecdh.PrivateKey
	public  [32]byte
	first   symmetric // after row 1 as responder
	mac1Key digest    // of messages to us
	cookie  digest    // key our cookie replies are sealed under
}

func newIdentity(k key.NodePrivate) (*identity, error) {
	raw := k.Raw()
	defer clear(raw[:])
	private, err := ecdh.X25519().NewPrivateKey(raw[:])
	if err != nil {
		return nil, fmt.Errorf("wireguard: private node key: %w", err)
	}
	id := &identity{private: private, public: k.Public().Raw()}
	id.first = start(&id.public)
	id.mac1Key = labelled(labelMAC1, &id.public)
	id.cookie = labelled(labelCookie, &id.public)
	return id, nil
}

// shared returns the static-static secret with a peer, which is worth keeping:
// each handshake needs it.
func (id *identity) shared(peer *[32]byte) ([32]byte, error) {
	s, ok := dh(id.private, peer)
	if !ok {
		return s, errLowOrder
	}
	return s, nil
}

// initiate makes rows 1 to 4 of doc/protocol/wireguard.md section 1.4 as
// initiator and returns the state after row 4. MACs are left to the caller.
func (id *identity) initiate(m *initiation, peer, shared *[32]byte, ephemeral *ecdh.PrivateKey, stamp *timestamp) (s symmetric, err error) {
	s = start(peer)
	copy(m.Ephemeral[:], ephemeral.PublicKey().Bytes())
	s.mixKey(m.Ephemeral[:])
	s.mixHash(m.Ephemeral[:])
	es, ok := dh(ephemeral, peer)
	if !ok {
		return s, errLowOrder
	}
	k := s.mixKey2(es[:])
	clear(es[:])
	s.seal(m.Static[:], &k, id.public[:])
	k = s.mixKey2(shared[:])
	s.seal(m.Stamp[:], &k, stamp[:])
	return s, nil
}

// identify runs rows 1 to 3 as responder and returns the initiator's static key
// with the state. The key is only claimed until authenticate has succeeded.
func (id *identity) identify(m *initiation) (static [32]byte, s symmetric, err error) {
	s = id.first
	s.mixKey(m.Ephemeral[:])
	s.mixHash(m.Ephemeral[:])
	es, ok := dh(id.private, &m.Ephemeral)
	if !ok {
		return static, s, errLowOrder
	}
	k := s.mixKey2(es[:])
	clear(es[:])
	if !s.open(static[:], &k, m.Static[:]) {
		s.erase()
		return static, s, errAuthentic
	}
	return static, s, nil
}

// authenticate runs row 4 as responder and returns the stamp.
func (s *symmetric) authenticate(m *initiation, shared *[32]byte) (stamp timestamp, err error) {
	k := s.mixKey2(shared[:])
	if !s.open(stamp[:], &k, m.Stamp[:]) {
		s.erase()
		return stamp, errAuthentic
	}
	return stamp, nil
}

// respond runs rows 5 to 10 as responder, from the state after row 4 which it
// consumes. initiator and peer are the initiator's ephemeral and static keys.
func (s *symmetric) respond(m *response, initiator, peer *[32]byte, ephemeral *ecdh.PrivateKey) (k transportKeys, err error) {
	defer s.erase()
	copy(m.Ephemeral[:], ephemeral.PublicKey().Bytes())
	s.mixKey(m.Ephemeral[:])
	s.mixHash(m.Ephemeral[:])
	if !s.mixDH(ephemeral, initiator) || !s.mixDH(ephemeral, peer) {
		return k, errLowOrder
	}
	k8 := s.mixPSK()
	s.seal(m.Empty[:], &k8, nil)
	k.receive, k.send = s.split()
	return k, nil
}

// finish runs rows 5 to 10 as initiator on a copy of the state after row 4, so
// that a message that fails changes nothing (WG-06).
func (id *identity) finish(after4 *symmetric, m *response, ephemeral *ecdh.PrivateKey) (k transportKeys, err error) {
	s := *after4
	defer s.erase()
	s.mixKey(m.Ephemeral[:])
	s.mixHash(m.Ephemeral[:])
	if !s.mixDH(ephemeral, &m.Ephemeral) || !s.mixDH(id.private, &m.Ephemeral) {
		return k, errLowOrder
	}
	k8 := s.mixPSK()
	var nothing [0]byte
	if !s.open(nothing[:], &k8, m.Empty[:]) {
		return k, errAuthentic
	}
	k.send, k.receive = s.split()
	return k, nil
}

// mixDH sets C = KDF1(C, DH(private, public)).
func (s *symmetric) mixDH(private *ecdh.PrivateKey, public *[32]byte) bool {
	shared, ok := dh(private, public)
	if ok {
		s.mixKey(shared[:])
	}
	clear(shared[:])
	return ok
}

// mixPSK runs row 8 with a preshared key of zeros: there never is one, but it
// MUST be mixed (WG-04), and returns the key of row 9.
func (s *symmetric) mixPSK() (k digest) {
	var psk, t digest
	kdf(&s.C, psk[:], &s.C, &t, &k)
	s.mixHash(t[:])
	clear(t[:])
	return k
}

// split returns T1, which the initiator sends under, and T2 (row 10).
func (s *symmetric) split() (t1, t2 digest) {
	kdf(&s.C, nil, &t1, &t2)
	return t1, t2
}

// transportKeys are the result of a handshake.
type transportKeys struct{ send, receive digest }

// aeads returns the ciphers and erases the keys (WG-15).
func (k *transportKeys) aeads() (seal, open cipher.AEAD) {
	return newAEAD(&k.send), newAEAD(&k.receive)
}
