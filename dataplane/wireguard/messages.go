package wireguard

import (
	"encoding/binary"
	"fmt"
)

// Message types, as the first 32 bits of a message: a type byte and three
// reserved zero bytes, little-endian (paper section 5.4; WG-03).
const (
	typeInitiation  uint32 = 1
	typeResponse    uint32 = 2
	typeCookieReply uint32 = 3
	typeTransport   uint32 = 4
)

// Sizes in bytes (paper section 5.4).
const (
	initiationSize  = 148
	responseSize    = 92
	cookieReplySize = 64
	transportHeader = 16                        // type, receiver index, counter
	tagSize         = 16                        // Poly1305
	keepaliveSize   = transportHeader + tagSize // the smallest transport message
	macSize         = 16
	cookieSize      = 16
	stampSize       = 12
	cookieNonceSize = 24
)

// A messageError says why bytes are not a message.
type messageError struct {
	Type   uint32
	Length int
}

func (e *messageError) Error() string {
	return fmt.Sprintf("wireguard: no message has type %#x and %d bytes", e.Type, e.Length)
}

// messageType returns the type of a message whose length fits it: types 1 to 3
// MUST have exactly their length, type 4 at least that of an empty packet
// (WG-03).
func messageType(b []byte) (uint32, error) {
	if len(b) < 4 {
		return 0, &messageError{Length: len(b)}
	}
	t, n := binary.LittleEndian.Uint32(b), len(b)
	switch {
	case t == typeInitiation && n == initiationSize,
		t == typeResponse && n == responseSize,
		t == typeCookieReply && n == cookieReplySize,
		t == typeTransport && n >= keepaliveSize:
		return t, nil
	}
	return t, &messageError{Type: t, Length: n}
}

// An initiation is a handshake initiation (paper section 5.4.2).
type initiation struct {
	Sender    uint32
	Ephemeral [32]byte
	Static    [32 + tagSize]byte        // sealed
	Stamp     [stampSize + tagSize]byte // sealed TAI64N
	MAC1      [macSize]byte
	MAC2      [macSize]byte
}

// A response is a handshake response (paper section 5.4.3).
type response struct {
	Sender    uint32
	Receiver  uint32
	Ephemeral [32]byte
	Empty     [tagSize]byte // sealed nothing
	MAC1      [macSize]byte
	MAC2      [macSize]byte
}

// A cookieReply is a cookie reply (paper section 5.4.7).
type cookieReply struct {
	Receiver uint32
	Nonce    [cookieNonceSize]byte
	Cookie   [cookieSize + tagSize]byte // sealed
}

// append appends the message to b.
func (m *initiation) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, typeInitiation)
	b = binary.LittleEndian.AppendUint32(b, m.Sender)
	b = append(b, m.Ephemeral[:]...)
	b = append(b, m.Static[:]...)
	b = append(b, m.Stamp[:]...)
	b = append(b, m.MAC1[:]...)
	return append(b, m.MAC2[:]...)
}

func (m *response) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, typeResponse)
	b = binary.LittleEndian.AppendUint32(b, m.Sender)
	b = binary.LittleEndian.AppendUint32(b, m.Receiver)
	b = append(b, m.Ephemeral[:]...)
	b = append(b, m.Empty[:]...)
	b = append(b, m.MAC1[:]...)
	return append(b, m.MAC2[:]...)
}

func (m *cookieReply) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, typeCookieReply)
	b = binary.LittleEndian.AppendUint32(b, m.Receiver)
	b = append(b, m.Nonce[:]...)
	return append(b, m.Cookie[:]...)
}

// parseInitiation reads an initiation.
func parseInitiation(b []byte) (m initiation, err error) {
	if err := expect(typeInitiation, b); err != nil {
		return m, err
	}
	m.Sender = binary.LittleEndian.Uint32(b[4:])
	take(b[8:], m.Ephemeral[:], m.Static[:], m.Stamp[:], m.MAC1[:], m.MAC2[:])
	return m, nil
}

// parseResponse reads a response.
func parseResponse(b []byte) (m response, err error) {
	if err := expect(typeResponse, b); err != nil {
		return m, err
	}
	m.Sender = binary.LittleEndian.Uint32(b[4:])
	m.Receiver = binary.LittleEndian.Uint32(b[8:])
	take(b[12:], m.Ephemeral[:], m.Empty[:], m.MAC1[:], m.MAC2[:])
	return m, nil
}

// parseCookieReply reads a cookie reply.
func parseCookieReply(b []byte) (m cookieReply, err error) {
	if err := expect(typeCookieReply, b); err != nil {
		return m, err
	}
	m.Receiver = binary.LittleEndian.Uint32(b[4:])
	take(b[8:], m.Nonce[:], m.Cookie[:])
	return m, nil
}

// expect reports an error unless b is a message of type want.
func expect(want uint32, b []byte) error {
	got, err := messageType(b)
	if err == nil && got != want {
		err = &messageError{Type: got, Length: len(b)}
	}
	return err
}

// take fills the fields from b in order. The caller has checked the length.
func take(b []byte, fields ...[]byte) {
	for _, f := range fields {
		b = b[copy(f, b):]
	}
}
