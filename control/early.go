package control

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
)

// The early payload (control.md section 5).
const (
	earlyMagic  = "\xff\xff\xffTS"
	earlyHeader = len(earlyMagic) + 4 // as long as an HTTP/2 frame header
	maxEarly    = 64 << 10            // bytes of JSON; section 15, rule 2
)

// An EarlyPayload is what a server may send ahead of HTTP/2. No request uses
// the challenge today.
type EarlyPayload struct {
	NodeKeyChallenge key.ChallengePublic `json:"nodeKeyChallenge,omitzero"`
}

// WriteEarlyPayload sends p as the server: right after the handshake, before
// HTTP/2.
func WriteEarlyPayload(w io.Writer, p EarlyPayload) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32([]byte(earlyMagic), uint32(len(body)))
	_, err = w.Write(append(msg, body...))
	return err
}

// An earlyConn consumes the early payload, if there is one, on the first Read.
// So the client never waits for it before it sends its own preface (CTL-16).
type earlyConn struct {
	host.Conn
	looked bool
	rest   []byte // read while looking, belongs to HTTP/2
}

// Read is called by one goroutine only, HTTP/2's read loop.
func (c *earlyConn) Read(p []byte) (int, error) {
	if !c.looked {
		var err error
		if c.rest, err = readEarly(c.Inner); err != nil {
			return 0, err
		}
		c.looked = true
	}
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Inner.Read(p)
}

// readEarly consumes an early payload and returns the bytes that are none.
func readEarly(r io.Reader) (rest []byte, err error) {
	head := make([]byte, earlyHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("first bytes of the control connection: %w", err)
	}
	if string(head[:len(earlyMagic)]) != earlyMagic {
		return head, nil
	}
	size := binary.BigEndian.Uint32(head[len(earlyMagic):])
	if size > maxEarly {
		return nil, fmt.Errorf("early payload of %d bytes, limit %d", size, maxEarly)
	}
	// Grown as it arrives; what it says is used by nothing, so only its form is
	// checked.
	body, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && len(body) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("early payload: %w", err)
	}
	var p EarlyPayload
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("early payload: %w", err)
	}
	return nil, nil
}
