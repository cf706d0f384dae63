package tka

import (
	"bytes"
	"encoding/base32"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/crypto/blake2s"
)

// A Hash names an update message: BLAKE2s-256 of its bytes (SVC-147).
type Hash [blake2s.Size]byte

var hashText = base32.StdEncoding.WithPadding(base32.NoPadding)

// String returns the form that control servers are told.
func (h Hash) String() string { return hashText.EncodeToString(h[:]) }

// A kind is what an update does (SVC-147). Updates of other kinds than these
// change nothing: a later version of the protocol may add some.
type kind uint8

const (
	addKey     kind = 1
	removeKey  kind = 2
	noOp       kind = 3
	updateKey  kind = 4
	checkpoint kind = 5
)

// An update is one message of an authority (SVC-147). It is never modified.
type update struct {
	kind       kind
	parent     []byte // hash of the update before; nil: the first
	key        *trustedKey
	keyID      []byte
	state      *state
	votes      *uint64
	meta       map[string]string
	signatures []signature

	raw  []byte
	hash Hash
}

// A signature is one of those under an update.
type signature struct{ keyID, sig []byte }

// Fields of an update (SVC-147).
const (
	fieldKind       = 1
	fieldParent     = 2
	fieldKey        = 3
	fieldKeyID      = 4
	fieldState      = 5
	fieldVotes      = 6
	fieldMeta       = 7
	fieldSignatures = 23
)

var errNotCanonical = errors.New("not in canonical form")

// parseUpdate reads an update and checks all that can be checked without knowing
// those before it.
func parseUpdate(b []byte) (*update, error) {
	u := &update{raw: slices.Clone(b), hash: blake2s.Sum256(b)}
	err := read(u.raw, u.read)
	if err == nil && !bytes.Equal(u.encode(u.signatures), b) {
		err = errNotCanonical
	}
	if err == nil {
		err = u.check()
	}
	if err != nil {
		return nil, fmt.Errorf("update of tailnet lock: %w", err)
	}
	return u, nil
}

func (u *update) read(r *reader) {
	r.fields(func(field uint64) {
		switch field {
		case fieldKind:
			u.kind = kind(r.uint(math.MaxUint8))
		case fieldParent:
			u.parent = r.bytes()
		case fieldKey:
			u.key = new(trustedKey)
			u.key.read(r)
		case fieldKeyID:
			u.keyID = r.bytes()
		case fieldState:
			u.state = new(state)
			u.state.read(r)
		case fieldVotes:
			n := r.uint(math.MaxUint64)
			u.votes = &n
		case fieldMeta:
			u.meta = r.texts()
		case fieldSignatures:
			r.list(func() { u.signatures = append(u.signatures, readSignature(r)) })
		default:
			r.unknown(field)
		}
	})
}

// readSignature reads one signature: field 1 names the key, 2 is the signature.
func readSignature(r *reader) (s signature) {
	r.fields(func(field uint64) {
		switch field {
		case 1:
			s.keyID = r.bytes()
		case 2:
			s.sig = r.bytes()
		default:
			r.unknown(field)
		}
	})
	return s
}

// encode returns the canonical form with these signatures.
func (u *update) encode(signatures []signature) []byte {
	var w mapWriter
	w.uintField(fieldKind, uint64(u.kind))
	w.field(fieldParent, func(b []byte) []byte { return appendBytes(b, u.parent) })
	if u.key != nil {
		w.field(fieldKey, u.key.append)
	}
	w.bytesField(fieldKeyID, u.keyID)
	if u.state != nil {
		w.field(fieldState, u.state.append)
	}
	if u.votes != nil {
		w.uintField(fieldVotes, *u.votes)
	}
	w.textsField(fieldMeta, u.meta)
	if len(signatures) > 0 {
		w.field(fieldSignatures, func(b []byte) []byte {
			b = appendHead(b, majorArray, uint64(len(signatures)))
			for _, s := range signatures {
				b = s.append(b)
			}
			return b
		})
	}
	return w.appendTo(nil)
}

func (s signature) append(b []byte) []byte {
	var w mapWriter
	w.field(1, func(b []byte) []byte { return appendBytes(b, s.keyID) })
	w.field(2, func(b []byte) []byte { return appendBytes(b, s.sig) })
	return w.appendTo(b)
}

// digest is what signatures are made of: the hash without them (SVC-147).
func (u *update) digest() []byte {
	sum := blake2s.Sum256(u.encode(nil))
	return sum[:]
}

// parentHash returns the hash of the update before. One of another length names
// none that exists.
func (u *update) parentHash() (h Hash, ok bool) {
	if len(u.parent) != len(h) {
		return h, false
	}
	return Hash(u.parent), true
}

// check looks at what each kind may and must have.
func (u *update) check() error {
	if u.parent != nil && len(u.parent) == 0 {
		return errors.New("empty hash of the update before it")
	}
	for i, s := range u.signatures {
		if len(s.keyID) != keySize || len(s.sig) != signatureSize {
			return fmt.Errorf("signature %d is malformed", i)
		}
	}
	if u.key != nil {
		if err := u.key.check(); err != nil {
			return err
		}
	}
	if u.state != nil {
		if err := u.state.check(); err != nil {
			return err
		}
	}
	return u.checkFields()
}

// checkFields refuses updates that lack a field of their kind, or have one of
// another.
func (u *update) checkFields() error {
	has := fields{key: u.key != nil, keyID: u.keyID != nil, state: u.state != nil, changes: u.votes != nil || u.meta != nil}
	want, ok := fieldsOf[u.kind]
	if ok && has != want {
		return fmt.Errorf("fields of an update of kind %d are %+v, want %+v", u.kind, has, want)
	}
	return nil
}

// fields says which fields an update has.
type fields struct{ key, keyID, state, changes bool }

// fieldsOf are the fields of those kinds that are told which.
var fieldsOf = map[kind]fields{
	addKey:     {key: true},
	removeKey:  {keyID: true},
	updateKey:  {keyID: true, changes: true},
	checkpoint: {state: true},
}
