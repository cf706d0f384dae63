package key

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const meshRedacted = "mesh-key(redacted)"

// A Mesh is the secret that the relays of a DERP region share: whoever holds it
// has mesh rights (derp.md section 3). Text form 64 hex digits. The zero value
// means "absent".
type Mesh struct {
	_ notComparable
	k [Size]byte
}

// NewMesh returns a new random mesh key.
func NewMesh() (k Mesh) {
	rand.Read(k.k[:])
	return k
}

// ParseMesh reads the text form; white space around it is ignored, as files end
// with a new line (DERP-03). An error never contains the input.
func ParseMesh(text string) (k Mesh, err error) {
	text = strings.TrimSpace(text)
	if n, err := hex.Decode(k.k[:], []byte(text[:min(len(text), 2*Size)])); err != nil || n != Size || len(text) != 2*Size {
		return Mesh{}, fmt.Errorf("key: a mesh key is %d hex digits, this is not: %d characters", 2*Size, len(text))
	}
	return k, nil
}

// IsZero reports whether the key is absent.
func (k Mesh) IsZero() bool { return isZero(&k.k) }

// Equal reports in constant time whether both keys are the same. An absent key
// equals nothing, not even itself (DERP-06).
func (k Mesh) Equal(o Mesh) bool { return !k.IsZero() && equal(&k.k, &o.k) }

// SecretText returns the text form, for a relay's login and key file only.
func (k Mesh) SecretText() string { return string(appendText(nil, "", k.k[:])) }

// MarshalText always fails: see SecretText.
func (k Mesh) MarshalText() ([]byte, error) { return nil, errSecret }

// String never shows the key.
func (Mesh) String() string { return meshRedacted }

// Format never shows the key, whatever the verb.
func (Mesh) Format(f fmt.State, _ rune) { io.WriteString(f, meshRedacted) }

// LogValue never shows the key.
func (Mesh) LogValue() slog.Value { return slog.StringValue(meshRedacted) }
