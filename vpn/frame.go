package vpn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// Sizes of a frame, in bytes (vpn-tunnel.md section 3.1).
const (
	lengthSize = 4        // of the length that goes before the message, big-endian
	maxMessage = 16 << 20 // of a message
)

// A message is a wire.ManagerMessage or a wire.TunnelMessage.
type message interface {
	proto.Message
	GetRpc() *wire.RPC
}

// encode returns a message as a frame. One that is too long is an error here,
// and leaves the stream alone (VPN-11).
func encode(m message) ([]byte, error) {
	size := proto.Size(m)
	if size > maxMessage {
		return nil, fmt.Errorf("vpn: a message of %d bytes: more than %d", size, maxMessage)
	}
	b, err := proto.MarshalOptions{UseCachedSize: true, Deterministic: true}.MarshalAppend(make([]byte, lengthSize, lengthSize+size), m)
	if err != nil {
		return nil, fmt.Errorf("vpn: encode message: %w", err)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthSize))
	return b, nil
}

// readFrame reads the message of one frame. The end of the stream between two
// frames is io.EOF, that inside of one io.ErrUnexpectedEOF. Memory grows with what
// has come, not with what the length says.
func readFrame(r io.Reader) ([]byte, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size == 0 || size > maxMessage {
		return nil, fmt.Errorf("vpn: a frame of %d bytes: want 1 to %d", size, maxMessage)
	}
	var b bytes.Buffer
	_, err := io.CopyN(&b, r, int64(size))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// decodeManager reads what a manager has sent.
func decodeManager(b []byte) (message, error) {
	m := new(wire.ManagerMessage)
	return m, decode(b, m)
}

// decodeTunnel reads what a tunnel has sent.
func decodeTunnel(b []byte) (message, error) {
	m := new(wire.TunnelMessage)
	return m, decode(b, m)
}

func decode(b []byte, m message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("vpn: decode message of %d bytes: %w", len(b), err)
	}
	return nil
}

// request marks a message as the request with that id.
func request(id uint64) *wire.RPC { return &wire.RPC{MsgId: id} }

// replyTo marks a message as the reply to a peer's request.
func replyTo(id uint64) *wire.RPC { return &wire.RPC{ResponseTo: id} }
