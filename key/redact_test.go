package key

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// forms returns how the first bytes of a key look in any output.
func forms(k []byte) []string {
	k = k[:6]
	return []string{
		fmt.Sprintf("%x", k),
		fmt.Sprintf("%X", k),
		strings.Trim(fmt.Sprintf("%d", k), "[]"),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", k), "[]byte{"), "}"),
		string(k),
	}
}

// TestRedacted: no verb, logger or encoding shows a private key, on its own or
// within what holds it.
func TestRedacted(t *testing.T) {
	m, n, d, c, l := NewMachine(), NewNode(), NewDisco(), NewChallenge(), NewLock()
	mesh := NewMesh()
	s := d.Shared(NewDisco().Public())
	tests := []struct {
		name string
		bits []byte
		show string
		vs   []any
	}{
		{"machine", m.k[:], machineRedacted, within(m)},
		{"node", n.k[:], nodeRedacted, within(n)},
		{"disco", d.k[:], discoRedacted, within(d)},
		{"challenge", c.k[:], challengeRedacted, within(c)},
		{"lock", l.k[:], lockRedacted, within(l)},
		{"shared", s.k[:], sharedRedacted, within(s)},
		{"mesh", mesh.k[:], meshRedacted, within(mesh)},
	}
	for _, tt := range tests {
		for _, v := range tt.vs {
			out := print(v)
			if !strings.Contains(out, tt.show) {
				t.Errorf("%s as %T: the output does not say %s:\n%s", tt.name, v, tt.show, out)
			}
			for _, form := range forms(tt.bits) {
				if strings.Contains(out, form) {
					t.Errorf("%s as %T: the key is in the output:\n%s", tt.name, v, out)
				}
			}
			for codec, encode := range encoders {
				if b, err := encode(v); err == nil {
					t.Errorf("%s as %T: encoded as %s: %s", tt.name, v, codec, b)
				}
			}
		}
	}
}

// within returns k in the shapes that a program prints.
func within[K any](k K) []any {
	type holder struct{ Key K }
	return []any{k, &k, holder{k}, &holder{k}, []K{k}, map[string]K{"k": k}, any(k)}
}

func print(v any) string {
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		fmt.Fprintf(&out, verb+"\n", v)
	}
	fmt.Fprintln(&out, v, errors.New(fmt.Sprint(v)))
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", slog.Group("g", "v", v))
	return out.String()
}

var encoders = map[string]func(any) ([]byte, error){
	"JSON": json.Marshal,
	"XML":  func(v any) ([]byte, error) { return xml.Marshal(v) },
	"gob": func(v any) ([]byte, error) {
		var b bytes.Buffer
		err := gob.NewEncoder(&b).Encode(v)
		return b.Bytes(), err
	},
}
