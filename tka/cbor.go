package tka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Major types of CBOR data items that messages consist of (RFC 8949, section 3.1),
// and null (section 3.3).
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5

	null = 0xf6
)

// Bounds of a message; those of the reference decoder, but for the size.
const (
	maxMessage = 1 << 20 // bytes
	maxDepth   = 16      // maps and arrays within one another; SVC-148
	maxItems   = 4096    // of an array
	maxPairs   = 1024    // of a map
)

var errTrailing = errors.New("data after the end")

// A reader takes one message apart. The first error stays: after it everything
// reads as zero.
type reader struct {
	rest  []byte
	depth int
	err   error
}

// read has f take all of b apart.
func read(b []byte, f func(*reader)) error {
	if len(b) > maxMessage {
		return fmt.Errorf("%d bytes, more than %d", len(b), maxMessage)
	}
	r := &reader{rest: b}
	f(r)
	if r.err == nil && len(r.rest) > 0 {
		return errTrailing
	}
	return r.err
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// take returns the next n bytes, nil when there are fewer.
func (r *reader) take(n uint64) []byte {
	if uint64(len(r.rest)) < n {
		r.fail(io.ErrUnexpectedEOF)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// head reads the head of a data item of a major type, and its number.
func (r *reader) head(major byte) uint64 {
	b := r.take(1)
	if b == nil {
		return 0
	}
	if b[0]>>5 != major {
		r.fail(fmt.Errorf("data item of type %d, want %d", b[0]>>5, major))
		return 0
	}
	info := b[0] & 0x1f
	switch {
	case info < 24:
		return uint64(info)
	case info > 27:
		r.fail(fmt.Errorf("length of kind %d", info)) // 31: unknown until the end
		return 0
	}
	var n [8]byte
	size := 1 << (info - 24) // bytes
	copy(n[8-size:], r.take(uint64(size)))
	return binary.BigEndian.Uint64(n[:])
}

// isNull takes a null, if that is next.
func (r *reader) isNull() bool {
	if len(r.rest) == 0 || r.rest[0] != null {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// uint reads a number of at most limit.
func (r *reader) uint(limit uint64) uint64 {
	n := r.head(majorUint)
	if n > limit {
		r.fail(fmt.Errorf("number %d, more than %d", n, limit))
		return 0
	}
	return n
}

// bytes reads a string of bytes, which shares the message's memory; nil for null.
func (r *reader) bytes() []byte {
	if r.isNull() {
		return nil
	}
	return r.take(r.head(majorBytes))
}

func (r *reader) text() string {
	b := r.take(r.head(majorText))
	if !utf8.Valid(b) {
		r.fail(errors.New("text is not UTF-8"))
	}
	return string(b)
}

// enter reads the head of an array or a map of at most limit members, and calls
// f for each.
func (r *reader) enter(major byte, limit uint64, f func()) {
	n := r.head(major)
	if r.depth++; n > limit || r.depth > maxDepth {
		r.fail(fmt.Errorf("%d members at depth %d, at most %d at depth %d", n, r.depth, limit, maxDepth))
	}
	for ; n > 0 && r.err == nil; n-- {
		f()
	}
	r.depth--
}

// list reads an array; false for null.
func (r *reader) list(f func()) bool {
	if r.isNull() {
		return false
	}
	r.enter(majorArray, maxItems, f)
	return true
}

// fields reads a map from numbers; f reads the value of one.
func (r *reader) fields(f func(field uint64)) {
	r.enter(majorMap, maxPairs, func() {
		if field := r.uint(maxField); r.err == nil {
			f(field)
		}
	})
}

// unknown refuses a field.
func (r *reader) unknown(field uint64) { r.fail(fmt.Errorf("unknown field %d", field)) }

func (r *reader) texts() map[string]string {
	m := make(map[string]string)
	r.enter(majorMap, maxPairs, func() {
		k := r.text()
		m[k] = r.text()
	})
	return m
}
