package derp

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A FrameType says what a frame's payload is (DERP section 5).
type FrameType byte

// The frame types. C is a client, M a client holding the mesh key, S a server.
const (
	FrameServerKey     FrameType = 0x01 // S to C: magic, server key
	FrameClientInfo    FrameType = 0x02 // C to S: client key, sealed JSON
	FrameServerInfo    FrameType = 0x03 // S to C: sealed JSON
	FrameSendPacket    FrameType = 0x04 // C to S: destination key, data
	FrameRecvPacket    FrameType = 0x05 // S to C: source key, data
	FrameKeepAlive     FrameType = 0x06 // S to C: empty
	FrameNotePreferred FrameType = 0x07 // C to S: 1 when this is the client's home
	FramePeerGone      FrameType = 0x08 // S to C and M: peer key, reason
	FramePeerPresent   FrameType = 0x09 // S to M: peer key, address, flags
	FrameForwardPacket FrameType = 0x0a // M to S: source key, destination key, data
	FrameWatchConns    FrameType = 0x10 // M to S: empty
	FrameClosePeer     FrameType = 0x11 // M to S: target key
	FramePing          FrameType = 0x12 // either: 8 bytes
	FramePong          FrameType = 0x13 // either: the 8 bytes of the ping
	FrameHealth        FrameType = 0x14 // S to C: problem text, empty = healthy again
	FrameRestarting    FrameType = 0x15 // S to C: two durations
)

var frameNames = map[FrameType]string{
	FrameServerKey: "ServerKey", FrameClientInfo: "ClientInfo", FrameServerInfo: "ServerInfo",
	FrameSendPacket: "SendPacket", FrameRecvPacket: "RecvPacket", FrameKeepAlive: "KeepAlive",
	FrameNotePreferred: "NotePreferred", FramePeerGone: "PeerGone", FramePeerPresent: "PeerPresent",
	FrameForwardPacket: "ForwardPacket", FrameWatchConns: "WatchConns", FrameClosePeer: "ClosePeer",
	FramePing: "Ping", FramePong: "Pong", FrameHealth: "Health", FrameRestarting: "Restarting",
}

// String returns the frame's name in the specification, or its number.
func (t FrameType) String() string {
	if s, ok := frameNames[t]; ok {
		return s
	}
	return "0x" + strconv.FormatUint(uint64(t), 16)
}

// Sizes in bytes, and the protocol's version (DERP-07, DERP-08, DERP-10).
const (
	ProtocolVersion = 2

	HeaderSize    = 5       // type and u32be payload length
	NonceSize     = 24      // in front of what is sealed (DERP-04)
	MaxPacketSize = 65536   // data of one packet
	MaxFrame      = 1 << 20 // largest payload either side skips rather than hanging up

	// SendHeaderSize is the length of everything before the data in a
	// SendPacket or RecvPacket frame.
	SendHeaderSize = HeaderSize + key.Size

	// maxPayload is the largest payload of a packet frame.
	maxPayload = 2*key.Size + MaxPacketSize
)

// KeepAlivePeriod is how often a relay says at least something; a few seconds
// more are chosen at random (DERP-58).
const KeepAlivePeriod = 60 * time.Second

// Names of the HTTP headers of the upgrade (DERP-97..99).
const (
	IdealNodeHeader = "Ideal-Node"      // the node a client wanted but could not reach
	FastStartHeader = "Derp-Fast-Start" // "1": no HTTP response wanted
)

// AppendHeader appends the header of a frame with n bytes of payload.
func AppendHeader(b []byte, t FrameType, n int) []byte {
	return append(b, byte(t), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// AppendFrame appends a whole frame.
func AppendFrame(b []byte, t FrameType, payload []byte) []byte {
	return append(AppendHeader(b, t, len(payload)), payload...)
}

// ParseHeader reads the header of a frame; ok is false when b is shorter than
// HeaderSize.
func ParseHeader(b []byte) (t FrameType, n uint32, ok bool) {
	if len(b) < HeaderSize {
		return 0, 0, false
	}
	return FrameType(b[0]), binary.BigEndian.Uint32(b[1:]), true
}

// A FrameReader reads frames from a stream. Its methods are for one goroutine,
// which calls Header and then exactly one of Payload and Discard.
type FrameReader struct {
	in readBuffer
}

// NewFrameReader returns a reader of the frames in r. pending are bytes of the
// stream that were read before; they are copied.
func NewFrameReader(r io.Reader, pending []byte) *FrameReader {
	f := &FrameReader{in: readBuffer{r: r}}
	f.in.prepend(pending)
	return f
}

// Header returns the type and payload length of the next frame. A stream that
// ends between frames gives io.EOF. It accepts any length: the caller decides
// what is too long.
func (f *FrameReader) Header() (FrameType, uint32, error) {
	if err := f.in.fill(HeaderSize); err != nil {
		return 0, 0, err
	}
	t, n, _ := ParseHeader(f.in.take(HeaderSize))
	return t, n, nil
}

// Payload returns the n bytes after a header, borrowed until the next call. n
// must be at most MaxFrame.
func (f *FrameReader) Payload(n uint32) ([]byte, error) {
	if n > MaxFrame {
		return nil, fmt.Errorf("derp: frame payload of %d bytes, want at most %d", n, MaxFrame)
	}
	if err := f.in.fill(int(n)); err != nil {
		return nil, noEOF(err)
	}
	return f.in.take(int(n)), nil
}

// Discard skips the n bytes after a header.
func (f *FrameReader) Discard(n uint32) error {
	for n > 0 {
		part := min(n, readIdle)
		if err := f.in.fill(int(part)); err != nil {
			return noEOF(err)
		}
		f.in.take(int(part))
		n -= part
	}
	return nil
}

// Buffered returns how many bytes have been read and not yet returned.
func (f *FrameReader) Buffered() int { return f.in.buffered() }
