package tka

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"slices"
)

const (
	keySize       = ed25519.PublicKeySize // bytes
	signatureSize = ed25519.SignatureSize // bytes

	maxVotes       = 4096 // of a key; SVC-147
	maxMeta        = 512  // bytes that a key carries along; SVC-147
	maxKeys        = 512  // SVC-147
	maxDisablement = 32   // values; SVC-147
	disablementLen = 32   // bytes of one; SVC-149
)

// kindEd25519 is the one kind of key there is (SVC-147).
const kindEd25519 = 1

// A trustedKey may sign updates and node keys. Its public part is its ID.
type trustedKey struct {
	kind   uint8
	votes  uint64
	public []byte
	meta   map[string]string
}

func (k *trustedKey) read(r *reader) {
	r.fields(func(field uint64) {
		switch field {
		case 1:
			k.kind = uint8(r.uint(math.MaxUint8))
		case 2:
			k.votes = r.uint(math.MaxUint64)
		case 3:
			k.public = r.bytes()
		case 12:
			k.meta = r.texts()
		default:
			r.unknown(field)
		}
	})
}

func (k *trustedKey) append(b []byte) []byte {
	var w mapWriter
	w.uintField(1, uint64(k.kind))
	w.uintField(2, k.votes)
	w.field(3, func(b []byte) []byte { return appendBytes(b, k.public) })
	w.textsField(12, k.meta)
	return w.appendTo(b)
}

func (k *trustedKey) check() error {
	size := 0
	for name, value := range k.meta {
		size += len(name) + len(value)
	}
	switch {
	case k.votes == 0 || k.votes > maxVotes:
		return fmt.Errorf("a key with %d votes, want 1 to %d", k.votes, maxVotes)
	case size > maxMeta:
		return fmt.Errorf("a key carries %d bytes along, more than %d", size, maxMeta)
	case k.kind != kindEd25519:
		return fmt.Errorf("a key of kind %d, want %d", k.kind, kindEd25519)
	}
	return nil
}

// verify reports whether sig is the key's signature of digest.
func (k *trustedKey) verify(digest, sig []byte) bool {
	return len(k.public) == keySize && ed25519.Verify(k.public, digest, sig)
}

// A state is what is trusted after an update. It is never modified.
type state struct {
	last        Hash     // the update; zero in a checkpoint, which has no hash of its own inside
	disablement [][]byte // what secrets that turn the lock off are checked against; SVC-149
	keys        []trustedKey
	id1, id2    uint64 // of the authority, for life

	hasLast bool // of a checkpoint as read: it names an update, which is wrong
}

func (s *state) read(r *reader) {
	r.fields(func(field uint64) {
		switch field {
		case 1:
			s.hasLast = r.bytes() != nil
		case 2:
			r.list(func() { s.disablement = append(s.disablement, r.bytes()) })
		case 3:
			r.list(func() {
				var k trustedKey
				k.read(r)
				s.keys = append(s.keys, k)
			})
		case 4:
			s.id1 = r.uint(math.MaxUint64)
		case 5:
			s.id2 = r.uint(math.MaxUint64)
		default:
			r.unknown(field)
		}
	})
}

// append adds the state as it stands in a checkpoint.
func (s *state) append(b []byte) []byte {
	var w mapWriter
	w.field(1, func(b []byte) []byte { return append(b, null) })
	w.field(2, func(b []byte) []byte {
		b = appendHead(b, majorArray, uint64(len(s.disablement)))
		for _, v := range s.disablement {
			b = appendBytes(b, v)
		}
		return b
	})
	w.field(3, func(b []byte) []byte {
		b = appendHead(b, majorArray, uint64(len(s.keys)))
		for i := range s.keys {
			b = s.keys[i].append(b)
		}
		return b
	})
	if s.id1 != 0 {
		w.uintField(4, s.id1)
	}
	if s.id2 != 0 {
		w.uintField(5, s.id2)
	}
	return w.appendTo(b)
}

// check looks at a state in a checkpoint (SVC-147).
func (s *state) check() error {
	switch {
	case s.hasLast:
		return errors.New("a checkpoint names an update")
	case len(s.disablement) == 0 || len(s.disablement) > maxDisablement:
		return fmt.Errorf("a checkpoint with %d disablement values, want 1 to %d", len(s.disablement), maxDisablement)
	case len(s.keys) == 0 || len(s.keys) > maxKeys:
		return fmt.Errorf("a checkpoint with %d keys, want 1 to %d", len(s.keys), maxKeys)
	}
	for i, v := range s.disablement {
		if len(v) != disablementLen || slices.ContainsFunc(s.disablement[:i], func(o []byte) bool { return bytes.Equal(o, v) }) {
			return fmt.Errorf("disablement value %d is of the wrong length or there twice", i)
		}
	}
	for i := range s.keys {
		if err := s.keys[i].check(); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if s.find(s.keys[i].public) != i {
			return fmt.Errorf("key %d is there twice", i)
		}
	}
	return nil
}

// find returns the place of a key, -1 when it is not trusted.
func (s *state) find(id []byte) int {
	for i := range s.keys {
		if bytes.Equal(s.keys[i].public, id) {
			return i
		}
	}
	return -1
}

// weight adds up the votes of those who signed u, each once.
func (s *state) weight(u *update) (votes uint64) {
	seen := make(map[string]bool, len(u.signatures))
	for _, sig := range u.signatures {
		if i := s.find(sig.keyID); i >= 0 && !seen[string(sig.keyID)] {
			seen[string(sig.keyID)] = true
			votes += s.keys[i].votes
		}
	}
	return votes
}
