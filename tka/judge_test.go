package tka

import (
	"crypto/ed25519"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/key"
)

// A signer is somebody whom an authority trusts.
type signer struct{ private ed25519.PrivateKey }

func newSigner() signer {
	_, k, _ := ed25519.GenerateKey(nil)
	return signer{k}
}

func (s signer) public() []byte { return s.private.Public().(ed25519.PublicKey) }

func (s signer) sign(digest []byte) []byte { return ed25519.Sign(s.private, digest) }

// update returns the bytes of u with the signer's signature.
func (s signer) update(u update) []byte {
	return u.encode([]signature{{s.public(), s.sign(u.digest())}})
}

// authority returns one that trusts the signer.
func (s signer) authority(t *testing.T) *Authority {
	t.Helper()
	a, err := Bootstrap(s.update(update{kind: checkpoint, state: s.state()}))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s signer) state() *state {
	return &state{disablement: [][]byte{make([]byte, disablementLen)}, keys: []trustedKey{{kind: kindEd25519, votes: 1, public: s.public()}}}
}

// direct returns the signature of a node key that rotations by lock may replace.
func (s signer) direct(node key.NodePublic, lock key.LockPrivate) []byte {
	public, _ := hex.DecodeString(strings.TrimPrefix(lock.Public().String(), "nlpub:"))
	n := &nodeSignature{kind: direct, node: prefixed(node), keyID: s.public(), wrapping: public}
	n.sig = s.sign(n.digest())
	return n.encode()
}

// renewed returns a new key with its signature.
func renewed(t *testing.T, lock key.LockPrivate, old []byte) Node {
	t.Helper()
	n := Node{Key: key.NewNode().Public()}
	var err error
	if n.Signature, err = Rotate(lock, n.Key, old); err != nil {
		t.Fatal(err)
	}
	return n
}

// Who is let in: signed nodes, but not with a key that a rotation has replaced;
// of copies of a node the one with most rotations, none when that is not one
// alone (SVC-145).
func TestAdmit(t *testing.T) {
	s, lock := newSigner(), key.NewLock()
	first := Node{Key: key.NewNode().Public()}
	first.Signature = s.direct(first.Key, lock)
	second := renewed(t, lock, first.Signature)
	third := renewed(t, lock, second.Signature)
	copied := renewed(t, lock, first.Signature)
	stranger := Node{Key: key.NewNode().Public(), Signature: newSigner().direct(key.NewNode().Public(), lock)}
	unsigned := Node{Key: key.NewNode().Public()}
	for name, test := range map[string]struct {
		nodes []Node
		want  []bool
	}{
		"signed":                 {[]Node{first}, []bool{true}},
		"not signed":             {[]Node{unsigned, stranger}, []bool{false, false}},
		"replaced":               {[]Node{first, second}, []bool{false, true}},
		"replaced twice":         {[]Node{third, second, first}, []bool{true, false, false}},
		"the longest of copies":  {[]Node{copied, third}, []bool{false, true}},
		"copies of equal length": {[]Node{second, copied, first}, []bool{false, false, false}},
		"nobody":                 {nil, []bool{}},
	} {
		j := NewJudge(s.authority(t))
		for range 2 { // the second time from memory
			if got := j.Admit(test.nodes); !slices.Equal(got, test.want) {
				t.Errorf("%s: %v, want %v", name, got, test.want)
			}
		}
	}
}

// A Judge does not mistake a node with a new signature for the one it knows.
func TestAdmitForgets(t *testing.T) {
	s, lock := newSigner(), key.NewLock()
	n := Node{Key: key.NewNode().Public()}
	j := NewJudge(s.authority(t))
	for range 2 {
		n.Signature = nil
		if j.Admit([]Node{n})[0] {
			t.Error("let in without a signature")
		}
		n.Signature = s.direct(n.Key, lock)
		if !j.Admit([]Node{n})[0] {
			t.Error("not let in with a signature")
		}
	}
}

// A key that does not have the lock key renews no signature.
func TestRotateWithAnotherKey(t *testing.T) {
	s, node := newSigner(), key.NewNode().Public()
	n := renewed(t, key.NewLock(), s.direct(node, key.NewLock()))
	if s.authority(t).Verify(n.Key, n.Signature) == nil {
		t.Error("valid")
	}
}

// A long history is cut off at a checkpoint, and goes on from there.
func TestCompaction(t *testing.T) {
	s := newSigner()
	a := s.authority(t)
	var updates [][]byte
	last := a.Head()
	for i := range compactAbove + keepUpdates {
		u := update{kind: noOp, parent: slices.Clone(last[:])}
		if i%100 == 99 {
			u.kind, u.state = checkpoint, s.state()
		}
		b := s.update(u)
		parsed, err := parseUpdate(b)
		if err != nil {
			t.Fatal(err)
		}
		last = parsed.hash
		updates = append(updates, b)
	}
	a, err := a.Inform(updates)
	if err != nil || a.Head() != last {
		t.Fatalf("%v; head %v, want %v", err, a.Head(), last)
	}
	if n := len(a.updates); n < keepUpdates || n > keepUpdates+100 {
		t.Errorf("%d updates are kept", n)
	}
	again, err := Open(a.Updates())
	if err != nil || again.Head() != last {
		t.Errorf("opened again: %v", err)
	}
	if head, ancestors := a.Offer(); head != last.String() || len(ancestors) != 4+1 {
		t.Errorf("offer of %d ancestors", len(ancestors))
	}
}
