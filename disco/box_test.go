package disco

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
)

// Keys and frame of doc/protocol/paths.md appendix A.
const (
	privateA = "0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60"
	privateB = "4042434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60"
	frameAB  = "5453f09f92ac07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c" +
		"c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7" + "7e1583e0fd8fb820a2c678cc6ff66aba" +
		"ac0e0b7ce686d771a295db8e744f1ac29601efb731ea8c88770eb64180b9a22af451548aa7be8b926c85e2d372d8"
)

func privateKey(t testing.TB, s string) key.DiscoPrivate {
	t.Helper()
	return key.DiscoPrivateFromRaw([key.Size]byte(unhex(t, s)))
}

func TestFrameVector(t *testing.T) {
	a, b := privateKey(t, privateA), privateKey(t, privateB)
	frame := unhex(t, frameAB)
	if len(frame) != PingFrame {
		t.Fatalf("frame of %d bytes, PingFrame = %d", len(frame), PingFrame)
	}
	from, ok := Sender(frame)
	if !ok || from != a.Public() {
		t.Fatalf("Sender = %v, %v; want %v", from, ok, a.Public())
	}
	shared := b.Shared(from)
	m, err := Open(&shared, frame)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(vectors[0].m, m, compareKeys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSealAndOpen(t *testing.T) {
	a, b := key.NewDisco(), key.NewDisco()
	ab, ba := a.Shared(b.Public()), b.Shared(a.Public())
	seen := make(map[string]bool)
	for _, v := range vectors {
		frame := Seal(a.Public(), &ab, v.m)
		if len(frame) != Overhead+len(Append(nil, v.m)) {
			t.Errorf("%s: frame of %d bytes", v.name, len(frame))
		}
		m, err := Open(&ba, frame)
		if err != nil || cmp.Diff(v.m, m, compareKeys) != "" {
			t.Errorf("%s: %v, %+v", v.name, err, m)
		}
		if nonce := string(frame[frameHeader:][:24]); seen[nonce] {
			t.Errorf("%s: the nonce of another frame (PATH-03)", v.name)
		} else {
			seen[nonce] = true
		}
	}
}

// TestForgeries: each single bit counts, as does whom a frame is sealed to.
func TestForgeries(t *testing.T) {
	a, b, c := key.NewDisco(), key.NewDisco(), key.NewDisco()
	ab, ba := a.Shared(b.Public()), b.Shared(a.Public())
	ca := c.Shared(a.Public())
	frame := Seal(a.Public(), &ab, &Ping{TxID: NewTxID()})
	if _, err := Open(&ca, frame); !errors.Is(err, ErrNotForUs) {
		t.Errorf("another recipient: %v", err)
	}
	for i := frameHeader; i < len(frame); i++ {
		frame[i] ^= 1
		if _, err := Open(&ba, frame); !errors.Is(err, ErrNotForUs) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		frame[i] ^= 1
	}
	for n := range len(frame) {
		if _, err := Open(&ba, frame[:n]); !errors.Is(err, ErrNotForUs) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Open(&ba, frame); err != nil {
		t.Errorf("the frame itself: %v", err)
	}
}

func TestSender(t *testing.T) {
	k := key.NewDisco().Public()
	good := appendKey([]byte(magic), k)
	zero := append([]byte(magic), make([]byte, key.Size)...)
	for _, tt := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"frame", good, true}, {"short", good[:37], false}, {"zero key (PATH-05)", zero, false},
		{"other magic", append([]byte("TSnode"), good[6:]...), false}, {"nothing", nil, false},
	} {
		if got, ok := Sender(tt.b); ok != tt.ok || ok && got != k {
			t.Errorf("%s: %v, %v", tt.name, got, ok)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(unhex(f, frameAB))
	a, b := privateKey(f, privateA), privateKey(f, privateB)
	shared := b.Shared(a.Public())
	f.Fuzz(func(t *testing.T, frame []byte) {
		from, ok := Sender(frame)
		if !ok {
			return
		}
		m, err := Open(&shared, frame)
		if from.IsZero() || err == nil && m == nil {
			t.Fatalf("opened %x from %v: %v", frame, from, m)
		}
	})
}
