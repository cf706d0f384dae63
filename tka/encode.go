package tka

import (
	"bytes"
	"encoding/binary"
	"math"
	"sort"
)

// maxField is the highest number of a field; all take one byte.
const maxField = 23

// appendHead adds the shortest head of a data item.
func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendUint(b []byte, n uint64) []byte { return appendHead(b, majorUint, n) }

// appendBytes adds a string of bytes; null for nil.
func appendBytes(b, s []byte) []byte {
	if s == nil {
		return append(b, null)
	}
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

// appendText adds a text.
func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

// appendTexts adds a map, its keys in the order of their encoding.
func appendTexts(b []byte, m map[string]string) []byte {
	keys := make([][]byte, 0, len(m))
	for k := range m {
		keys = append(keys, appendText(nil, k))
	}
	sort.Slice(keys, func(i, j int) bool { return bytes.Compare(keys[i], keys[j]) < 0 })
	b = appendHead(b, majorMap, uint64(len(m)))
	for _, k := range keys {
		head := reader{rest: k}
		b = appendText(append(b, k...), m[head.text()])
	}
	return b
}

// A mapWriter gathers the fields of a map, which are added in ascending order.
type mapWriter struct {
	fields uint64
	body   []byte
}

// field begins a field and returns where its value is to be added.
func (w *mapWriter) field(n uint64, value func([]byte) []byte) {
	w.fields++
	w.body = value(appendUint(w.body, n))
}

// bytesField adds a field, unless it is empty.
func (w *mapWriter) bytesField(n uint64, s []byte) {
	if len(s) > 0 {
		w.field(n, func(b []byte) []byte { return appendBytes(b, s) })
	}
}

// uintField adds a field.
func (w *mapWriter) uintField(n, value uint64) {
	w.field(n, func(b []byte) []byte { return appendUint(b, value) })
}

// textsField adds a field, unless it is empty.
func (w *mapWriter) textsField(n uint64, m map[string]string) {
	if len(m) > 0 {
		w.field(n, func(b []byte) []byte { return appendTexts(b, m) })
	}
}

// appendTo adds the map.
func (w *mapWriter) appendTo(b []byte) []byte {
	return append(appendHead(b, majorMap, w.fields), w.body...)
}
