// Package state keeps what a node must remember between runs: named values in
// a store, and the profile (keys, login and preferences) laid out in them as
// tailscaled and tsnet do, so that a state directory or a Secret of Kubernetes
// moves between them and us without a new login.
//
// It owns the stores (a file with its format and its lock, memory, a Secret) and
// the layout of the keys. What the values mean while the node runs, and when
// they change, is for control and node.
//
// Source: doc/protocol/node-services.md section 14 and doc/protocol/control.md
// section 1; shapes observed with tsnet v1.102.5 (testdata/README.md).
package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Store reads and writes named values, which are opaque bytes (SVC-142). It
// is safe for concurrent use. A store that also implements io.Closer is closed
// by whoever opened it.
type Store interface {
	// Read returns the value of id, or an error that is ErrNotFound when there
	// is none. The caller owns the returned bytes.
	Read(ctx context.Context, id string) ([]byte, error)

	// Write replaces the value of id; nil deletes it. When Write has returned
	// nil the value survives a crash, in stores that survive one at all. The
	// store does not keep value.
	Write(ctx context.Context, id string, value []byte) error
}

// ErrNotFound says that a store has no value of that name.
var ErrNotFound = errors.New("no such key in the state store")

// notFound names the missing key.
func notFound(id string) error { return fmt.Errorf("state: %q: %w", id, ErrNotFound) }

// prefixMem selects the memory store; anything after it is ignored.
const prefixMem = "mem:"

// Open returns the store that spec names (SVC-139): a path of a state file, or
// "mem:" for a store that is lost with the process. Any other "word:" prefix is
// an error; a path that has one is written with "./" in front.
func Open(spec string) (Store, error) {
	switch prefix, ok := specPrefix(spec); {
	case spec == "":
		return nil, errors.New("state: no store named: give mem: or the path of a state file")
	case !ok:
		return OpenFile(spec)
	case prefix == prefixMem:
		return NewMemory(), nil
	default:
		return nil, fmt.Errorf("state: %s: stores of kind %q are not supported: give mem: or the path of a state file", spec, prefix)
	}
}

// specPrefix returns the "word:" in front of spec. A single letter is a Windows
// drive, and a colon behind a path separator is part of a name.
func specPrefix(spec string) (prefix string, ok bool) {
	i := strings.IndexAny(spec, `:/\`)
	if i < 2 || spec[i] != ':' {
		return "", false
	}
	return spec[:i+1], true
}
