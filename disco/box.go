package disco

import (
	"bytes"
	"errors"

	"github.com/seed94491740/tsnode/key"
)

// magic begins every frame: "TS" and U+1F4AC (paths.md section 2.1).
const magic = "TS\xf0\x9f\x92\xac"

// Sizes of frames in bytes (PATH-03).
const (
	frameHeader = len(magic) + key.Size

	// Overhead is how much longer a frame is than its plaintext.
	Overhead = frameHeader + key.BoxOverhead

	// PingFrame is the length of the frame of a ping without padding.
	PingFrame = Overhead + headerSize + pingSize
)

// ErrNotForUs says that a frame does not open with the key agreed with its
// sender: it is stale, or sealed to another key (PATH-12).
var ErrNotForUs = errors.New("disco: frame does not open")

// Sender returns the disco key that a frame claims to come from; false when b
// is no frame, or the key is all zero (PATH-05).
func Sender(b []byte) (key.DiscoPublic, bool) {
	if len(b) < frameHeader || !bytes.HasPrefix(b, []byte(magic)) {
		return key.DiscoPublic{}, false
	}
	k := parseKey(b[len(magic):])
	return k, !k.IsZero()
}

// Seal returns the frame of m from the node with disco key own, sealed with the
// key that it shares with the recipient.
func Seal(own key.DiscoPublic, shared *key.DiscoShared, m Message) []byte {
	plain := Append(make([]byte, 0, 128), m)
	frame := make([]byte, 0, Overhead+len(plain))
	frame = appendKey(append(frame, magic...), own)
	return shared.Seal(frame, plain)
}

// Open returns the message of a frame that Sender has accepted. The error is
// ErrNotForUs, or one of Parse.
func Open(shared *key.DiscoShared, frame []byte) (Message, error) {
	if len(frame) < frameHeader {
		return nil, ErrNotForUs
	}
	plain, ok := shared.Open(frame[frameHeader:])
	if !ok {
		return nil, ErrNotForUs
	}
	return Parse(plain)
}
