package interop

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	reference "tailscale.com/types/key"

	ours "github.com/seed94491740/tsnode/key"
)

var record = flag.Bool("record", false, "write the reference's vectors into the testdata of the main module")

// keyVectors are what the reference makes of two random keys.
type keyVectors struct {
	Origin              string
	Private1, Private2  string // text forms; of no use to anybody
	Public1, Public2    string
	Short1              string
	Plain               string
	SealedBy1To2, Hex12 string // in hex
}

const keyVectorFile = "../key/testdata/reference.json"

// The reference's keys and boxes are ours: text forms, public halves, log forms,
// and boxes opened each by the other. With -record, vectors for the main
// module's own test are written anew.
func TestKeysAndBoxes(t *testing.T) {
	a, b := reference.NewNode(), reference.NewNode()
	text := func(k reference.NodePrivate) string {
		s, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		return string(s)
	}
	plain := []byte("a message in a box")
	v := keyVectors{
		Origin:   "tailscale.com v1.102.5, types/key, recorded by interop/vectors_test.go -record",
		Private1: text(a), Private2: text(b), Public1: a.Public().String(), Public2: b.Public().String(),
		Short1: a.Public().ShortString(), Plain: string(plain),
		SealedBy1To2: hex.EncodeToString(a.SealTo(b.Public(), plain)), Hex12: strings.TrimPrefix(a.Public().String(), "nodekey:"),
	}
	check(t, v)
	var ourA ours.NodePrivate
	if err := ourA.UnmarshalText([]byte(v.Private1)); err != nil {
		t.Fatal(err)
	}
	theirB, err := ours.ParseNodePublic(v.Public2)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := b.OpenFrom(a.Public(), ourA.SealTo(theirB, plain)); !ok || string(got) != string(plain) {
		t.Errorf("the reference does not open our box: %q, %v", got, ok)
	}
	if *record {
		write(t, v)
	}
	var stored keyVectors
	text2, err := os.ReadFile(keyVectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text2, &stored); err != nil {
		t.Fatal(err)
	}
	check(t, stored)
}

// check compares what ours makes of the keys with what the reference made.
func check(t *testing.T, v keyVectors) {
	t.Helper()
	var a, b ours.NodePrivate
	for k, text := range map[*ours.NodePrivate]string{&a: v.Private1, &b: v.Private2} {
		if err := k.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	sealed, err := hex.DecodeString(v.SealedBy1To2)
	if err != nil {
		t.Fatal(err)
	}
	plain, ok := b.OpenFrom(a.Public(), sealed)
	if !ok {
		t.Error("the reference's box does not open")
	}
	got := []string{a.Public().String(), b.Public().String(), a.Public().Short(), a.Public().Hex(), string(plain)}
	want := []string{v.Public1, v.Public2, v.Short1, v.Hex12, v.Plain}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reference (-), ours (+):\n%s", diff)
	}
}

func write(t *testing.T, v keyVectors) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.FromSlash(keyVectorFile), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
