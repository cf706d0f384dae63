package key

import (
	"strings"
	"testing"
)

func TestMeshText(t *testing.T) {
	const digits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	k, err := ParseMesh(" \t" + strings.ToUpper(digits) + "\r\n")
	if err != nil || k.SecretText() != digits {
		t.Errorf("ParseMesh gives %q, %v", k.SecretText(), err)
	}
	for _, bad := range []string{"", digits[1:], digits + "00", "g" + digits[1:], "privkey:" + digits, digits[:32] + " " + digits[32:]} {
		k, err := ParseMesh(bad)
		if err == nil || !k.IsZero() {
			t.Errorf("ParseMesh(%q) gives a key, error %v", bad, err)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad[8:]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

// DERP-06: an absent mesh key never matches.
func TestMeshEqual(t *testing.T) {
	a, b := NewMesh(), NewMesh()
	for _, c := range []struct {
		name string
		a, b Mesh
		want bool
	}{{"same", a, a, true}, {"different", a, b, false}, {"one absent", a, Mesh{}, false}, {"both absent", Mesh{}, Mesh{}, false}} {
		if got := c.a.Equal(c.b); got != c.want {
			t.Errorf("%s: Equal is %v", c.name, got)
		}
	}
}
