package key

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// What the reference implementation made of two keys; interop/vectors_test.go
// records the file.
func TestReferenceKeysAndBoxes(t *testing.T) {
	text, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Private1, Private2, Public1, Public2, Short1, Plain, SealedBy1To2, Hex12 string }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	var a, b NodePrivate
	for k, text := range map[*NodePrivate]string{&a: v.Private1, &b: v.Private2} {
		if err := k.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if a.Public().String() != v.Public1 || b.Public().String() != v.Public2 || a.Public().Short() != v.Short1 || a.Public().Hex() != v.Hex12 {
		t.Errorf("public forms %v %v %v %v", a.Public(), b.Public(), a.Public().Short(), a.Public().Hex())
	}
	sealed, err := hex.DecodeString(v.SealedBy1To2)
	if err != nil {
		t.Fatal(err)
	}
	if plain, ok := b.OpenFrom(a.Public(), sealed); !ok || string(plain) != v.Plain {
		t.Errorf("box holds %q, %v", plain, ok)
	}
	sealed[len(sealed)-1] ^= 1
	if _, ok := b.OpenFrom(a.Public(), sealed); ok {
		t.Error("a damaged box opens")
	}
}
