package key

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Prefixes of the text forms (control.md section 1).
const (
	machinePrefix   = "mkey:"
	nodePrefix      = "nodekey:"
	discoPrefix     = "discokey:"
	challengePrefix = "chalpub:"
	privatePrefix   = "privkey:"
)

// appendText appends prefix and the lower-case hex of k.
func appendText(b []byte, prefix string, k []byte) []byte {
	return hex.AppendEncode(append(b, prefix...), k)
}

// parseText reads prefix and exactly len(dst) hex-coded bytes of either case.
// Its errors never contain the input: it may be a private key.
func parseText(dst []byte, prefix string, text []byte) error {
	digits, ok := strings.CutPrefix(string(text), prefix)
	if !ok {
		return fmt.Errorf("key: want prefix %q", prefix)
	}
	if len(digits) != 2*len(dst) {
		return fmt.Errorf("key: want %q and %d hex digits, got %d", prefix, 2*len(dst), len(digits))
	}
	tmp := make([]byte, len(dst))
	if _, err := hex.Decode(tmp, []byte(digits)); err != nil {
		return fmt.Errorf("key: want %q and hex digits, got other characters", prefix)
	}
	copy(dst, tmp)
	return nil
}

// ParseMachinePublic reads the text form of a machine key.
func ParseMachinePublic(s string) (k MachinePublic, err error) {
	return k, k.UnmarshalText([]byte(s))
}

// ParseNodePublic reads the text form of a node key.
func ParseNodePublic(s string) (k NodePublic, err error) { return k, k.UnmarshalText([]byte(s)) }

// ParseDiscoPublic reads the text form of a disco key.
func ParseDiscoPublic(s string) (k DiscoPublic, err error) { return k, k.UnmarshalText([]byte(s)) }

// ParseNodePublicHex reads 64 hex digits without a prefix, as a relay's
// certificate and header carry its key (DERP-03).
func ParseNodePublicHex(s string) (k NodePublic, err error) {
	return k, parseText(k.k[:], "", []byte(s))
}

// Hex returns the 64 lower-case hex digits of the key without a prefix.
func (k NodePublic) Hex() string { return hex.EncodeToString(k.k[:]) }

// MarshalText returns the text form.
func (k MachinePublic) MarshalText() ([]byte, error) {
	return appendText(nil, machinePrefix, k.k[:]), nil
}

// UnmarshalText reads the text form; an empty text is an error (CTL-01).
func (k *MachinePublic) UnmarshalText(b []byte) error { return parseText(k.k[:], machinePrefix, b) }

// String returns the text form.
func (k MachinePublic) String() string { return string(appendText(nil, machinePrefix, k.k[:])) }

// MarshalText returns the text form.
func (k NodePublic) MarshalText() ([]byte, error) { return appendText(nil, nodePrefix, k.k[:]), nil }

// UnmarshalText reads the text form; an empty text is an error (CTL-01).
func (k *NodePublic) UnmarshalText(b []byte) error { return parseText(k.k[:], nodePrefix, b) }

// String returns the text form.
func (k NodePublic) String() string { return string(appendText(nil, nodePrefix, k.k[:])) }

// MarshalText returns the text form.
func (k DiscoPublic) MarshalText() ([]byte, error) { return appendText(nil, discoPrefix, k.k[:]), nil }

// UnmarshalText reads the text form; an empty text is an error (CTL-01).
func (k *DiscoPublic) UnmarshalText(b []byte) error { return parseText(k.k[:], discoPrefix, b) }

// String returns the text form.
func (k DiscoPublic) String() string { return string(appendText(nil, discoPrefix, k.k[:])) }

// MarshalText returns the text form.
func (k ChallengePublic) MarshalText() ([]byte, error) {
	return appendText(nil, challengePrefix, k.k[:]), nil
}

// UnmarshalText reads the text form; an empty text is an error (CTL-01).
func (k *ChallengePublic) UnmarshalText(b []byte) error {
	return parseText(k.k[:], challengePrefix, b)
}

// String returns the text form.
func (k ChallengePublic) String() string { return string(appendText(nil, challengePrefix, k.k[:])) }

// Short returns the form for logs: the first five characters of the key in
// base64, in brackets; the zero key is empty.
func (k MachinePublic) Short() string { return short(k.k) }

// Short returns the form for logs: the first five characters of the key in
// base64, in brackets; the zero key is empty.
func (k NodePublic) Short() string { return short(k.k) }

// Short returns the form for logs: "d:" and the first eight bytes in hex.
func (k DiscoPublic) Short() string {
	if k.IsZero() {
		return ""
	}
	return "d:" + hex.EncodeToString(k.k[:8])
}

func short(k [Size]byte) string {
	if k == [Size]byte{} {
		return ""
	}
	return "[" + base64.StdEncoding.EncodeToString(k[:])[:5] + "]"
}

// LogValue shows the short form, so that a key in a log line stays readable.
func (k MachinePublic) LogValue() slog.Value { return slog.StringValue(k.Short()) }

// LogValue shows the short form, so that a key in a log line stays readable.
func (k NodePublic) LogValue() slog.Value { return slog.StringValue(k.Short()) }

// LogValue shows the short form, so that a key in a log line stays readable.
func (k DiscoPublic) LogValue() slog.Value { return slog.StringValue(k.Short()) }

// errSecret is what encoding a private key by reflection gives: a struct that
// holds one cannot leak it through a JSON log, and cannot be stored by accident.
var errSecret = errors.New("key: a private key is only written with SecretText")

// SecretText returns the text form, for the state store only.
func (k MachinePrivate) SecretText() string {
	return string(appendText(nil, privatePrefix, k.k[:]))
}

// MarshalText always fails: see SecretText.
func (k MachinePrivate) MarshalText() ([]byte, error) { return nil, errSecret }

// UnmarshalText reads the secret text form; its errors do not repeat it.
func (k *MachinePrivate) UnmarshalText(b []byte) error { return parseText(k.k[:], privatePrefix, b) }

// SecretText returns the text form, for the state store only.
func (k NodePrivate) SecretText() string { return string(appendText(nil, privatePrefix, k.k[:])) }

// MarshalText always fails: see SecretText.
func (k NodePrivate) MarshalText() ([]byte, error) { return nil, errSecret }

// UnmarshalText reads the secret text form; its errors do not repeat it.
func (k *NodePrivate) UnmarshalText(b []byte) error { return parseText(k.k[:], privatePrefix, b) }

// MarshalText always fails: a disco key is never stored (control.md section 1).
func (k DiscoPrivate) MarshalText() ([]byte, error) { return nil, errSecret }

// MarshalText always fails: a challenge key is never stored.
func (k ChallengePrivate) MarshalText() ([]byte, error) { return nil, errSecret }
