package netcheck

import "fmt"

// A Tri is a question that may not have been answered. In JSON it is true or
// false; fields of it are left out while it is Unknown.
type Tri uint8

// The values of a Tri.
const (
	Unknown Tri = iota
	False
	True
)

// triOf returns the answer b.
func triOf(b bool) Tri {
	if b {
		return True
	}
	return False
}

// String returns "true", "false" or "?".
func (t Tri) String() string {
	switch t {
	case True:
		return "true"
	case False:
		return "false"
	}
	return "?"
}

// MarshalJSON returns true, false or null.
func (t Tri) MarshalJSON() ([]byte, error) {
	switch t {
	case True:
		return []byte("true"), nil
	case False:
		return []byte("false"), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads true, false or null.
func (t *Tri) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*t = True
	case "false":
		*t = False
	case "null":
		*t = Unknown
	default:
		return fmt.Errorf("netcheck: %.20q is not true, false or null", b)
	}
	return nil
}
