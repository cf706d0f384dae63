package key

import (
	"encoding"
	"encoding/json"
	"strings"
	"testing"
)

// digits is 64 hex digits, all different bytes.
const digits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// textForms are the text forms of control.md section 1.
var textForms = []struct {
	name   string
	text   string
	new    func() encoding.TextUnmarshaler
	encode func(encoding.TextUnmarshaler) string
}{
	{"machine", "mkey:" + digits, func() encoding.TextUnmarshaler { return new(MachinePublic) }, marshal},
	{"node", "nodekey:" + digits, func() encoding.TextUnmarshaler { return new(NodePublic) }, marshal},
	{"disco", "discokey:" + digits, func() encoding.TextUnmarshaler { return new(DiscoPublic) }, marshal},
	{"challenge", "chalpub:" + digits, func() encoding.TextUnmarshaler { return new(ChallengePublic) }, marshal},
	{"lock", "nlpub:" + digits, func() encoding.TextUnmarshaler { return new(LockPublic) }, marshal},
	{"machine private", "privkey:" + digits, func() encoding.TextUnmarshaler { return new(MachinePrivate) }, secret},
	{"node private", "privkey:" + digits, func() encoding.TextUnmarshaler { return new(NodePrivate) }, secret},
	{"lock private", "nlpriv:" + digits + digits, func() encoding.TextUnmarshaler { return new(LockPrivate) }, secret},
}

func marshal(k encoding.TextUnmarshaler) string {
	b, err := k.(encoding.TextMarshaler).MarshalText()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func secret(k encoding.TextUnmarshaler) string {
	return k.(interface{ SecretText() string }).SecretText()
}

// TestText: the text forms read and write, in either case of the digits
// (CTL-01).
func TestText(t *testing.T) {
	for _, tt := range textForms {
		prefix, rest, _ := strings.Cut(tt.text, ":")
		for _, in := range []string{tt.text, prefix + ":" + strings.ToUpper(rest)} {
			k := tt.new()
			if err := k.UnmarshalText([]byte(in)); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if got := tt.encode(k); got != tt.text {
				t.Errorf("%s: %s read as %s", tt.name, in, got)
			}
		}
	}
}

// TestTextBad: anything else is an error that does not repeat the input, and
// leaves the key as it was (CTL-01).
func TestTextBad(t *testing.T) {
	for _, tt := range textForms {
		prefix, rest, _ := strings.Cut(tt.text, ":")
		bad := []string{
			"", prefix + ":", rest, ":" + rest, "x" + tt.text, prefix + rest, " " + tt.text, tt.text + " ", tt.text + "0",
			tt.text + "00", strings.ToUpper(prefix) + ":" + rest, "otherkey:" + rest,
			prefix + ":g" + rest[1:], prefix + ":" + rest[:len(rest)-1] + "\n", prefix + ":" + strings.Repeat("é", len(rest)/2),
		}
		for n := range len(tt.text) {
			bad = append(bad, tt.text[:n])
		}
		for _, in := range bad {
			k := tt.new()
			if err := k.UnmarshalText([]byte(tt.text)); err != nil {
				t.Fatal(err)
			}
			err := k.UnmarshalText([]byte(in))
			if err == nil {
				t.Errorf("%s: %q was accepted", tt.name, in)
				continue
			}
			if strings.Contains(err.Error(), rest[10:30]) {
				t.Errorf("%s: the error repeats the key: %v", tt.name, err)
			}
			if got := tt.encode(k); got != tt.text {
				t.Errorf("%s: %q changed the key to %s", tt.name, in, got)
			}
		}
	}
}

func TestTextLockCLI(t *testing.T) {
	var k LockPublic
	if err := k.UnmarshalText([]byte("tlpub:" + digits)); err != nil || k.String() != "nlpub:"+digits {
		t.Errorf("tlpub: read as %v, %v", k, err)
	}
	if err := k.UnmarshalText([]byte("tlpub:" + digits[1:])); err == nil {
		t.Error("a short tlpub: key was accepted")
	}
}

func TestParse(t *testing.T) {
	if k, err := ParseMachinePublic("mkey:" + digits); err != nil || k.String() != "mkey:"+digits {
		t.Errorf("machine: %v, %v", k, err)
	}
	if k, err := ParseNodePublic("nodekey:" + digits); err != nil || k.String() != "nodekey:"+digits || k.Hex() != digits {
		t.Errorf("node: %v, %v", k, err)
	}
	if k, err := ParseDiscoPublic("discokey:" + digits); err != nil || k.String() != "discokey:"+digits {
		t.Errorf("disco: %v, %v", k, err)
	}
	if k, err := ParseNodePublicHex(digits); err != nil || k.Hex() != digits {
		t.Errorf("hex: %v, %v", k, err)
	}
	for _, in := range []string{"", digits[:62], "nodekey:" + digits, digits + "00"} {
		if k, err := ParseNodePublicHex(in); err == nil || !k.IsZero() {
			t.Errorf("hex %q: %v, %v", in, k, err)
		}
	}
}

// TestJSON: public keys are JSON strings, as values and as names of members.
func TestJSON(t *testing.T) {
	type body struct {
		Key NodePublic
		Map map[DiscoPublic]int
	}
	in := `{"Key":"nodekey:` + digits + `","Map":{"discokey:` + digits + `":1}}`
	var v body
	if err := json.Unmarshal([]byte(in), &v); err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(v); err != nil || string(out) != in {
		t.Errorf("%s became %s, %v", in, out, err)
	}
	if err := json.Unmarshal([]byte(`{"Key":""}`), &v); err == nil {
		t.Error("an empty key was accepted (CTL-01)")
	}
}

// TestShort are the forms for logs (control.md section 1).
func TestShort(t *testing.T) {
	n, err := ParseNodePublicHex(digits)
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		n.Short():                                               "[AAECA]",
		MachinePublicFromRaw(n.Raw()).Short():                   "[AAECA]",
		DiscoPublicFromRaw(n.Raw()).Short():                     "d:0001020304050607",
		n.LogValue().String() + "!":                             "[AAECA]!",
		NodePublic{}.Short() + "?":                              "?",
		MachinePublic{}.Short() + "??":                          "??",
		DiscoPublic{}.Short() + "???":                           "???",
		DiscoPublicFromRaw(n.Raw()).LogValue().String() + "!":   "d:0001020304050607!",
		MachinePublicFromRaw(n.Raw()).LogValue().String() + "*": "[AAECA]*",
	} {
		if got != want {
			t.Errorf("short form %q, want %q", got, want)
		}
	}
}

// FuzzText: what a parser accepts it writes back in lower case.
func FuzzText(f *testing.F) {
	for _, tt := range textForms {
		f.Add(tt.text)
	}
	f.Add("tlpub:" + digits)
	f.Add("nodekey:")
	f.Fuzz(func(t *testing.T, in string) {
		for _, tt := range textForms {
			k := tt.new()
			if k.UnmarshalText([]byte(in)) != nil {
				continue
			}
			want := strings.ToLower(in)
			if rest, ok := strings.CutPrefix(want, lockPublicPrefixCLI); ok {
				want = lockPublicPrefix + rest
			}
			if got := tt.encode(k); got != want {
				t.Errorf("%s: %q read as %q", tt.name, in, got)
			}
		}
	})
}
