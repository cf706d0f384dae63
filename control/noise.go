package control

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strconv"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/seed94491740/tsnode/key"
)

// Parameters of the handshake (control.md sections 4.1 and 4.2).
const (
	noiseName      = "Noise_IK_25519_ChaChaPoly_BLAKE2s"
	prologuePrefix = "Tailscale Control Protocol v"

	frameInitiation = 1
	frameResponse   = 2
	frameError      = 3
	frameRecord     = 4

	// InitiationSize is the length of the client's message in bytes.
	InitiationSize = 101
	// ResponseSize is the length of the server's message in bytes.
	ResponseSize = 51

	initiationHeader = 5 // version, type, length
	frameHeader      = 3 // type, length
	tagSize          = chacha20poly1305.Overhead
	sealedKeySize    = key.Size + tagSize
)

// A Secrets is what both ends hold after a handshake.
type Secrets struct {
	Hash [32]byte // channel binding: the same at both ends, secret to nobody

	send, recv [chacha20poly1305.KeySize]byte // from the holder's point of view
}

// A ClientHandshake is the client's half of a Noise IK handshake, good for one
// connection attempt: each attempt, each leg of a race included, starts anew
// (CTL-15).
type ClientHandshake struct {
	sym        symmetric
	machine    [key.Size]byte
	ephemeral  [key.Size]byte
	initiation [InitiationSize]byte
}

// StartHandshake makes the initiation for a server whose static key is known.
// version is the capability version; the server cannot negotiate it.
func StartHandshake(machine key.MachinePrivate, server key.MachinePublic, version uint16) (*ClientHandshake, error) {
	return startHandshake(machine, server, version, newEphemeral())
}

func startHandshake(machine key.MachinePrivate, server key.MachinePublic, version uint16, ephemeral [key.Size]byte) (*ClientHandshake, error) {
	if machine.IsZero() || server.IsZero() {
		return nil, errors.New("noise: machine and server key must be set")
	}
	h := &ClientHandshake{machine: machine.Raw(), ephemeral: ephemeral}
	server32, pub := server.Raw(), machine.Public().Raw()
	h.sym.init(version, server32)
	msg := append(h.initiation[:0], byte(version>>8), byte(version), frameInitiation, 0, InitiationSize-initiationHeader)
	eph, err := publicOf(ephemeral)
	if err != nil {
		return nil, err
	}
	h.sym.mixHash(eph[:])
	msg = append(msg, eph[:]...)
	if err := h.sym.mixDH(ephemeral, server32); err != nil { // es
		return nil, err
	}
	msg = h.sym.seal(msg, pub[:])
	if err := h.sym.mixDH(h.machine, server32); err != nil { // ss
		return nil, err
	}
	h.sym.seal(msg, nil)
	return h, nil
}

// Initiation returns the message for the server. It is borrowed.
func (h *ClientHandshake) Initiation() []byte { return h.initiation[:] }

// Finish takes the server's response, header included, and returns the
// connection's secrets. It may be called once.
func (h *ClientHandshake) Finish(response []byte) (Secrets, error) {
	if len(response) != ResponseSize || response[0] != frameResponse ||
		binary.BigEndian.Uint16(response[1:]) != ResponseSize-frameHeader {
		return Secrets{}, errors.New("noise: not a handshake response")
	}
	eph := [key.Size]byte(response[frameHeader:])
	h.sym.mixHash(eph[:])
	if err := h.sym.mixDH(h.ephemeral, eph); err != nil { // ee
		return Secrets{}, err
	}
	if err := h.sym.mixDH(h.machine, eph); err != nil { // se
		return Secrets{}, err
	}
	if _, err := h.sym.open(response[frameHeader+key.Size:]); err != nil {
		return Secrets{}, errNotServer
	}
	s := Secrets{Hash: h.sym.h}
	s.send, s.recv = h.sym.split()
	return s, nil
}

// errNotServer says that whoever answered does not hold the private half of the
// server's key.
var errNotServer = errors.New("noise: response was not made by the control server whose key /key gave")

// An Accepted is the outcome of the server's half of a handshake.
type Accepted struct {
	Secrets  Secrets
	Machine  key.MachinePublic // the client's machine key, proven
	Version  uint16            // the client's capability version
	Response []byte            // to be sent to the client
}

// AcceptHandshake is the server's half: it takes an initiation and makes the
// response.
func AcceptHandshake(server key.MachinePrivate, initiation []byte) (Accepted, error) {
	return acceptHandshake(server, initiation, newEphemeral())
}

func acceptHandshake(server key.MachinePrivate, initiation []byte, ephemeral [key.Size]byte) (Accepted, error) {
	if len(initiation) != InitiationSize || initiation[2] != frameInitiation ||
		binary.BigEndian.Uint16(initiation[3:]) != InitiationSize-initiationHeader {
		return Accepted{}, errors.New("noise: not a handshake initiation")
	}
	a := Accepted{Version: binary.BigEndian.Uint16(initiation)}
	var sym symmetric
	sym.init(a.Version, server.Public().Raw())
	body := initiation[initiationHeader:]
	clientEph := [key.Size]byte(body)
	client, err := sym.readInitiation(server.Raw(), clientEph, body[key.Size:])
	if err != nil {
		return Accepted{}, err
	}
	a.Machine = key.MachinePublicFromRaw(client)
	eph, err := publicOf(ephemeral)
	if err != nil {
		return Accepted{}, err
	}
	msg := append(make([]byte, 0, ResponseSize), frameResponse, 0, ResponseSize-frameHeader)
	msg = append(msg, eph[:]...)
	sym.mixHash(eph[:])
	if err := sym.mixDH(ephemeral, clientEph); err != nil { // ee
		return Accepted{}, err
	}
	if err := sym.mixDH(ephemeral, client); err != nil { // se
		return Accepted{}, err
	}
	a.Response = sym.seal(msg, nil)
	a.Secrets.Hash = sym.h
	a.Secrets.recv, a.Secrets.send = sym.split()
	return a, nil
}

// readInitiation opens the sealed part of an initiation and returns the
// client's static key.
func (s *symmetric) readInitiation(server, eph [key.Size]byte, sealed []byte) (client [key.Size]byte, err error) {
	s.mixHash(eph[:])
	if err := s.mixDH(server, eph); err != nil { // es
		return client, err
	}
	static, err := s.open(sealed[:sealedKeySize])
	if err != nil {
		return client, fmt.Errorf("noise: initiation is for another server key: %w", err)
	}
	client = [key.Size]byte(static)
	if err := s.mixDH(server, client); err != nil { // ss
		return client, err
	}
	if _, err := s.open(sealed[sealedKeySize:]); err != nil {
		return client, fmt.Errorf("noise: initiation: %w", err)
	}
	return client, nil
}

// symmetric is the Noise symmetric state: chaining key, running hash and the
// key of the next message part (control.md section 4.3).
type symmetric struct{ h, ck, k [32]byte }

func (s *symmetric) init(version uint16, server [key.Size]byte) {
	s.h = blake2s.Sum256([]byte(noiseName)) // 33 bytes: longer than a hash, so hashed
	s.ck = s.h
	s.mixHash([]byte(prologuePrefix + strconv.Itoa(int(version))))
	s.mixHash(server[:])
}

func (s *symmetric) mixHash(b []byte) {
	h := newHash()
	h.Write(s.h[:])
	h.Write(b)
	h.Sum(s.h[:0])
}

// mixDH folds an X25519 agreement into ck and makes k. An all-zero result MUST
// abort (CTL-13): ECDH refuses it.
func (s *symmetric) mixDH(private, public [key.Size]byte) error {
	priv, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return fmt.Errorf("noise: %w", err)
	}
	pub, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return fmt.Errorf("noise: %w", err)
	}
	shared, err := priv.ECDH(pub)
	if err != nil {
		return fmt.Errorf("noise: %w", err)
	}
	s.ck, s.k = hkdf(s.ck, shared)
	return nil
}

// seal appends the sealed plaintext to dst and mixes it into the hash. Each k is
// used once, with a zero nonce.
func (s *symmetric) seal(dst, plaintext []byte) []byte {
	n := len(dst)
	dst = newAEAD(s.k).Seal(dst, make([]byte, chacha20poly1305.NonceSize), plaintext, s.h[:])
	s.mixHash(dst[n:])
	return dst
}

func (s *symmetric) open(sealed []byte) ([]byte, error) {
	plain, err := newAEAD(s.k).Open(nil, make([]byte, chacha20poly1305.NonceSize), sealed, s.h[:])
	s.mixHash(sealed)
	return plain, err
}

// split returns the two transport keys, client to server first.
func (s *symmetric) split() (k1, k2 [32]byte) { return hkdf(s.ck, nil) }

// hkdf is the two-output HKDF of the Noise paper, section 4.3.
func hkdf(ck [32]byte, ikm []byte) (o1, o2 [32]byte) {
	t := mac(ck[:], ikm)
	o1 = mac(t[:], []byte{1})
	o2 = mac(t[:], append(o1[:], 2))
	return o1, o2
}

func mac(key, msg []byte) (sum [32]byte) {
	m := hmac.New(newHash, key)
	m.Write(msg)
	m.Sum(sum[:0])
	return sum
}

func newHash() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(fmt.Sprintf("control: BLAKE2s without a key: %v", err)) // documented never to fail
	}
	return h
}

func newEphemeral() (k [key.Size]byte) {
	rand.Read(k[:]) // never fails: crypto/rand ends the process instead; X25519 clamps on use
	return k
}

func publicOf(private [key.Size]byte) (pub [key.Size]byte, err error) {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return pub, fmt.Errorf("noise: %w", err)
	}
	copy(pub[:], k.PublicKey().Bytes())
	return pub, nil
}
