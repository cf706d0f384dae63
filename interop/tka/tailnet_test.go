package tka_test

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"
	"testing"

	"tailscale.com/tka"
	"tailscale.com/types/tkatype"

	ourtka "github.com/seed94491740/tsnode/tka"
)

// A lockTailnet is an authority of the reference and ours, which are told the
// same, and all the messages that were made for them.
type lockTailnet struct {
	t      *testing.T
	rand   *rand.Rand
	people []ed25519.PrivateKey // who may be trusted
	secret []byte               // turns the lock off

	storage tka.CompactableChonk
	theirs  *tka.Authority
	ours    *ourtka.Authority
	hashes  []tka.AUMHash // of what is known
	genesis []byte
}

// newLockTailnet begins an authority that trusts some of five people.
func newLockTailnet(t *testing.T, r *rand.Rand) *lockTailnet {
	l := &lockTailnet{t: t, rand: r, storage: tka.ChonkMem(), secret: l32(r)}
	for range 5 {
		l.people = append(l.people, ed25519.NewKeyFromSeed(l32(r)))
	}
	a := tka.AUM{MessageKind: tka.AUMCheckpoint, State: l.state(2 + r.IntN(3))}
	l.sign(&a, 0)
	l.genesis = a.Serialize()
	var err error
	if l.theirs, err = tka.Bootstrap(l.storage, a); err != nil {
		t.Fatal(err)
	}
	if l.ours, err = ourtka.Bootstrap(l.genesis); err != nil {
		t.Fatal(err)
	}
	l.hashes = append(l.hashes, a.Hash())
	return l
}

// l32 returns 32 random bytes.
func l32(r *rand.Rand) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// disablementValue is that of every authority here: it takes time to make.
var disablementValue = tka.DisablementKDF([]byte("the secret that turns it off"))

// state returns a state that trusts the first n people.
func (l *lockTailnet) state(n int) *tka.State {
	s := &tka.State{DisablementValues: [][]byte{disablementValue}, StateID1: 300, StateID2: 70_000}
	for i := range n {
		s.Keys = append(s.Keys, l.key(i))
	}
	return s
}

func (l *lockTailnet) key(i int) tka.Key {
	k := tka.Key{Kind: tka.Key25519, Votes: uint(1 + l.rand.IntN(3)), Public: l.public(i)}
	if l.rand.IntN(3) == 0 {
		k.Meta = l.meta(400)
	}
	return k
}

func (l *lockTailnet) public(i int) []byte { return l.people[i].Public().(ed25519.PublicKey) }

// meta returns data of up to so many bytes more than a few.
func (l *lockTailnet) meta(size int) map[string]string {
	return map[string]string{"purpose": "test", "a": "", "bb": "ü", "name": string(make([]byte, l.rand.IntN(size)))}
}

func (l *lockTailnet) sign(a *tka.AUM, person int) {
	digest := a.SigHash()
	a.Signatures = append(a.Signatures, tkatype.Signature{KeyID: l.public(person), Signature: ed25519.Sign(l.people[person], digest[:])})
}

// signer returns somebody, more often than not one of those whom the authority
// trusts at the beginning.
func (l *lockTailnet) signer() int {
	if l.rand.IntN(6) == 0 {
		return l.rand.IntN(len(l.people))
	}
	return l.rand.IntN(2)
}

// update returns a random update after one of the newest; more often than not
// it is valid.
func (l *lockTailnet) update() tka.AUM {
	parent := l.theirs.Head()
	if l.rand.IntN(3) == 0 {
		parent = l.hashes[l.rand.IntN(len(l.hashes))]
	}
	a := tka.AUM{PrevAUMHash: parent[:]}
	someone := l.rand.IntN(len(l.people))
	switch l.rand.IntN(9) {
	case 0, 1, 2:
		k := l.key(someone)
		a.MessageKind, a.Key = tka.AUMAddKey, &k
	case 3, 4:
		a.MessageKind, a.KeyID = tka.AUMRemoveKey, l.public(someone)
	case 5:
		votes := uint(l.rand.IntN(5))
		a.MessageKind, a.KeyID, a.Votes = tka.AUMUpdateKey, l.public(someone), &votes
	case 6:
		a.MessageKind, a.KeyID, a.Meta = tka.AUMUpdateKey, l.public(someone), l.meta(520)
	case 7:
		a.MessageKind, a.State = tka.AUMCheckpoint, l.state(1+l.rand.IntN(5))
	case 8:
		a.MessageKind = []tka.AUMKind{tka.AUMNoOp, 9}[l.rand.IntN(2)]
	}
	l.spoil(&a)
	for range 1 + l.rand.IntN(2) {
		l.sign(&a, l.signer())
	}
	if l.rand.IntN(20) == 0 {
		a.Signatures = nil
	}
	return a
}

// spoil makes one update of eight wrong, before it is signed.
func (l *lockTailnet) spoil(a *tka.AUM) {
	switch l.rand.IntN(56) {
	case 0:
		a.PrevAUMHash = nil
	case 1:
		a.PrevAUMHash = a.PrevAUMHash[:30]
	case 2:
		a.KeyID = l.public(0)
	case 3:
		k := l.key(1)
		k.Kind = 2
		a.Key = &k
	case 4:
		a.State = &tka.State{}
	case 5:
		a.State = l.state(2)
		a.State.StateID2++
	case 6:
		a.MessageKind = 0
	}
}

// mutated returns b with a few bytes changed, added or left out.
func mutated(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(2) {
		i := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b = append(b[:i], b[i+1:]...)
		case 1:
			b = append(b[:i], append([]byte{byte(r.Uint32())}, b[i:]...)...)
		case 2:
			b = b[:i+1]
		case 3:
			b[i] ^= 1 << r.IntN(8)
		default: // where the structure is
			b[r.IntN(min(len(b), 48))] = byte(r.Uint32())
		}
		if len(b) == 0 {
			return []byte{0}
		}
	}
	return b
}

// inform tells both of updates and compares what they make of it.
func (l *lockTailnet) inform(updates ...[]byte) (accepted bool) {
	l.t.Helper()
	parsed := make([]tka.AUM, len(updates))
	refused, canonical := false, true
	for i, b := range updates {
		if err := parsed[i].Unserialize(b); err != nil {
			refused = true
			continue
		}
		canonical = canonical && bytes.Equal(parsed[i].Serialize(), b)
	}
	next, err := l.ours.Inform(updates)
	if !canonical || refused {
		if err == nil {
			l.t.Errorf("accepted, the reference can not read it or writes it in another way: %x", updates)
		}
		return false
	}
	theirErr := l.theirs.Inform(l.storage, parsed)
	if (err == nil) != (theirErr == nil) {
		l.t.Fatalf("%v; the reference: %v: %x", err, theirErr, updates)
	}
	if err != nil {
		return false
	}
	for _, a := range parsed {
		l.hashes = append(l.hashes, a.Hash())
	}
	l.ours = next
	if next.Head().String() != l.theirs.Head().String() {
		l.t.Fatalf("head %v, the reference has %v, after %x", next.Head(), l.theirs.Head(), updates)
	}
	return true
}
