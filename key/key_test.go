package key

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

type vectors struct {
	Origin      string
	Pairs       []struct{ Name, Private, Public string }
	Shared      string
	Disco, DERP boxVector
}

// A boxVector is a box that the holder of Private can open.
type boxVector struct{ Private, Peer, Sealed, Plain string }

func loadVectors(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if v.Origin == "" || len(v.Pairs) == 0 || v.Disco.Sealed == "" || v.DERP.Sealed == "" {
		t.Fatal("no vectors")
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func raw(t testing.TB, s string) [Size]byte { return [Size]byte(unhex(t, s)) }

// TestPublic: public halves are those of the vectors, for each type (CTL-02).
func TestPublic(t *testing.T) {
	for _, v := range loadVectors(t).Pairs {
		priv, pub := raw(t, v.Private), raw(t, v.Public)
		if got := MachinePrivateFromRaw(priv).Public(); got != MachinePublicFromRaw(pub) {
			t.Errorf("%s: machine key %v, want %s", v.Name, got, v.Public)
		}
		if got := NodePrivateFromRaw(priv).Public(); got != NodePublicFromRaw(pub) {
			t.Errorf("%s: node key %v, want %s", v.Name, got, v.Public)
		}
		if got := (DiscoPrivate{k: priv}).Public(); got != DiscoPublicFromRaw(pub) {
			t.Errorf("%s: disco key %v, want %s", v.Name, got, v.Public)
		}
		if got := (ChallengePrivate{k: priv}).Public(); got != ChallengePublicFromRaw(pub) {
			t.Errorf("%s: challenge key %v, want %s", v.Name, got, v.Public)
		}
	}
}

// TestNew: new keys are clamped, differ and are not zero (CTL-02).
func TestNew(t *testing.T) {
	seen := make(map[[Size]byte]bool)
	for range 20 {
		for _, k := range [][Size]byte{NewMachine().k, NewNode().k, NewDisco().k, NewChallenge().k} {
			if k[0]&7 != 0 || k[31]&0x80 != 0 || k[31]&0x40 == 0 {
				t.Fatalf("not clamped: %x…%x", k[0], k[31])
			}
			if seen[k] {
				t.Fatal("the same key twice")
			}
			seen[k] = true
		}
	}
	a, b := NewLock(), NewLock()
	if a.IsZero() || a.Public().IsZero() || a.Public() == b.Public() {
		t.Error("new lock keys are zero or the same")
	}
}

// TestZero: the zero value means absent, and has a zero public half.
func TestZero(t *testing.T) {
	for name, ok := range map[string]bool{
		"machine private":   MachinePrivate{}.IsZero() && !NewMachine().IsZero(),
		"node private":      NodePrivate{}.IsZero() && !NewNode().IsZero(),
		"disco private":     DiscoPrivate{}.IsZero() && !NewDisco().IsZero(),
		"challenge private": ChallengePrivate{}.IsZero() && !NewChallenge().IsZero(),
		"lock private":      LockPrivate{}.IsZero() && !NewLock().IsZero(),
		"machine public":    MachinePrivate{}.Public().IsZero() && !NewMachine().Public().IsZero(),
		"node public":       NodePrivate{}.Public().IsZero() && !NewNode().Public().IsZero(),
		"disco public":      DiscoPrivate{}.Public().IsZero() && !NewDisco().Public().IsZero(),
		"challenge public":  ChallengePrivate{}.Public().IsZero() && !NewChallenge().Public().IsZero(),
		"lock public":       LockPrivate{}.Public().IsZero() && !NewLock().Public().IsZero(),
	} {
		if !ok {
			t.Errorf("%s: IsZero is wrong", name)
		}
	}
}

func TestEqual(t *testing.T) {
	m, n, d := NewMachine(), NewNode(), NewDisco()
	if !m.Equal(MachinePrivateFromRaw(m.Raw())) || m.Equal(NewMachine()) || m.Equal(MachinePrivate{}) {
		t.Error("machine keys")
	}
	if !n.Equal(NodePrivateFromRaw(n.Raw())) || n.Equal(NewNode()) || n.Equal(NodePrivate{}) {
		t.Error("node keys")
	}
	if !d.Equal(d) || d.Equal(NewDisco()) || d.Equal(DiscoPrivate{}) {
		t.Error("disco keys")
	}
}

func TestLess(t *testing.T) {
	var a, b [Size]byte
	a[0], b[31] = 1, 0xff
	small, large := NodePublicFromRaw(b), NodePublicFromRaw(a)
	if !small.Less(large) || large.Less(small) || small.Less(small) {
		t.Error("keys are not ordered by their bytes")
	}
}

// TestRaw: raw bytes go in and out unchanged.
func TestRaw(t *testing.T) {
	var b [Size]byte
	for i := range b {
		b[i] = byte(i + 1)
	}
	for name, got := range map[string][Size]byte{
		"machine":         MachinePublicFromRaw(b).Raw(),
		"node":            NodePublicFromRaw(b).Raw(),
		"disco":           DiscoPublicFromRaw(b).Raw(),
		"challenge":       ChallengePublicFromRaw(b).Raw(),
		"machine private": MachinePrivateFromRaw(b).Raw(),
		"node private":    NodePrivateFromRaw(b).Raw(),
	} {
		if got != b {
			t.Errorf("%s: %x", name, got)
		}
	}
}

// TestBoxVectors: we open what the reference programs have sealed (DERP-04,
// PATH-04), and agree on the shared key.
func TestBoxVectors(t *testing.T) {
	v := loadVectors(t)
	disco := DiscoPrivate{k: raw(t, v.Disco.Private)}
	shared := disco.Shared(DiscoPublicFromRaw(raw(t, v.Disco.Peer)))
	if !bytes.Equal(shared.k[:], unhex(t, v.Shared)) {
		t.Error("shared key differs")
	}
	if got, ok := shared.Open(unhex(t, v.Disco.Sealed)); !ok || hex.EncodeToString(got) != v.Disco.Plain {
		t.Errorf("disco box: %x, %v", got, ok)
	}
	node := NodePrivateFromRaw(raw(t, v.DERP.Private))
	peer := NodePublicFromRaw(raw(t, v.DERP.Peer))
	if got, ok := node.OpenFrom(peer, unhex(t, v.DERP.Sealed)); !ok || hex.EncodeToString(got) != v.DERP.Plain {
		t.Errorf("DERP box: %q, %v", got, ok)
	}
}

// TestBoxDamaged: no truncation and no flipped bit of a box opens.
func TestBoxDamaged(t *testing.T) {
	v := loadVectors(t)
	node := NodePrivateFromRaw(raw(t, v.DERP.Private))
	peer := NodePublicFromRaw(raw(t, v.DERP.Peer))
	disco := DiscoPrivate{k: raw(t, v.Disco.Private)}
	shared := disco.Shared(DiscoPublicFromRaw(raw(t, v.Disco.Peer)))
	for name, open := range map[string]func([]byte) bool{
		v.DERP.Sealed:  func(b []byte) bool { _, ok := node.OpenFrom(peer, b); return ok },
		v.Disco.Sealed: func(b []byte) bool { _, ok := shared.Open(b); return ok },
	} {
		sealed := unhex(t, name)
		for n := range sealed {
			if open(sealed[:n]) {
				t.Errorf("the first %d bytes open", n)
			}
			bad := bytes.Clone(sealed)
			bad[n] ^= 1
			if open(bad) {
				t.Errorf("opens with byte %d changed", n)
			}
		}
		if open(nil) || !open(sealed) {
			t.Error("nothing opens, or the whole does not")
		}
	}
}

func TestBoxRoundTrip(t *testing.T) {
	a, b, eve := NewNode(), NewNode(), NewNode()
	for _, size := range []int{0, 1, 32, 4096} {
		msg := bytes.Repeat([]byte{7}, size)
		sealed := a.SealTo(b.Public(), msg)
		if len(sealed) != size+BoxOverhead {
			t.Errorf("%d bytes became %d, want %d more", size, len(sealed), BoxOverhead)
		}
		if got, ok := b.OpenFrom(a.Public(), sealed); !ok || !bytes.Equal(got, msg) {
			t.Errorf("%d bytes do not open", size)
		}
		if bytes.Equal(sealed, a.SealTo(b.Public(), msg)) {
			t.Error("two boxes share a nonce")
		}
		if _, ok := eve.OpenFrom(a.Public(), sealed); ok {
			t.Error("a third party opens it")
		}
		if _, ok := b.OpenFrom(eve.Public(), sealed); ok {
			t.Error("opens with another sender's key")
		}
	}
	if _, ok := (NodePrivate{}).OpenFrom(a.Public(), a.SealTo(b.Public(), nil)); ok {
		t.Error("the zero key opens a box")
	}
	if _, ok := a.OpenFrom(NodePublic{}, a.SealTo(b.Public(), nil)); ok {
		t.Error("a box of the zero key opens")
	}
}

// TestDiscoShared: both sides agree, and Seal appends.
func TestDiscoShared(t *testing.T) {
	a, b := NewDisco(), NewDisco()
	ab, ba := a.Shared(b.Public()), b.Shared(a.Public())
	sealed := ab.Seal([]byte("head"), []byte("hello"))
	if string(sealed[:4]) != "head" || len(sealed) != 4+5+BoxOverhead {
		t.Fatalf("sealed %x", sealed)
	}
	if got, ok := ba.Open(sealed[4:]); !ok || string(got) != "hello" {
		t.Errorf("opened %q, %v", got, ok)
	}
}
