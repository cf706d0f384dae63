package websocket_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/transport/derp/websocket"
)

// Opcodes of RFC 6455 section 5.2; opFinal is the bit of a message's last frame.
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa
	opFinal    = 0x80
)

// A rawClient speaks WebSocket by hand.
type rawClient struct {
	net.Conn
	in       *bufio.Reader
	response *http.Response
}

// knock sends the request of a handshake with more header lines, each with its
// line end.
func knock(t *testing.T, s *httptest.Server, headers string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET /derp HTTP/1.1\r\nHost: relay.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+headers+"\r\n") // key of RFC 6455 section 1.3
	r := &rawClient{Conn: c, in: bufio.NewReader(c)}
	r.response, err = http.ReadResponse(r.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// frame returns a frame of a client (RFC 6455 section 5.2). Its mask is zero,
// which leaves the payload as it is.
func frame(head byte, payload []byte) []byte {
	b := []byte{head}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// next reads a frame of the server.
func (r *rawClient) next(t *testing.T) (head byte, payload []byte) {
	t.Helper()
	var b [2]byte
	if _, err := io.ReadFull(r.in, b[:]); err != nil {
		t.Fatal(err)
	}
	n := int(b[1])
	if n == 126 {
		var long [2]byte
		io.ReadFull(r.in, long[:])
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r.in, payload); err != nil {
		t.Fatal(err)
	}
	return b[0], payload
}

// expectClose reads the close frame of the server and answers it.
func (r *rawClient) expectClose(t *testing.T, code uint16) {
	t.Helper()
	head, payload := r.next(t)
	if head != opFinal|opClose || len(payload) < 2 || binary.BigEndian.Uint16(payload) != code {
		t.Fatalf("frame %#x %q, want a close frame with code %d", head, payload, code)
	}
	r.Write(frame(opFinal|opClose, payload[:2]))
}

const offersDERP = "Sec-WebSocket-Protocol: derp\r\n"

// TestHandshake: DERP-100: the subprotocol is agreed on, every origin is
// welcome, and no compression is.
func TestHandshake(t *testing.T) {
	a, s := serve(t, httptest.NewServer)
	r := knock(t, s, "Sec-WebSocket-Protocol: chat, derp\r\nOrigin: https://evil.example\r\nSec-WebSocket-Extensions: permessage-deflate\r\n")
	a.accepted(t)
	if r.response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %s", r.response.Status)
	}
	for name, want := range map[string]string{
		"Sec-Websocket-Accept":     "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", // RFC 6455 section 1.3
		"Sec-Websocket-Protocol":   "derp",
		"Sec-Websocket-Extensions": "",
	} {
		if got := r.response.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestNoSubprotocol: DERP-100: a client that offers something that only looks
// like the subprotocol is told so with code 1008.
func TestNoSubprotocol(t *testing.T) {
	a, s := serve(t, httptest.NewServer)
	knock(t, s, "Sec-WebSocket-Protocol: derpy\r\n").expectClose(t, 1008)
	if err := <-a.errs; !strings.Contains(err.Error(), "subprotocol") {
		t.Errorf("error %q", err)
	}
}

// TestIsUpgrade: DERP-96, DERP-100: who means WebSocket, and who means DERP.
func TestIsUpgrade(t *testing.T) {
	for _, c := range []struct {
		upgrade   string
		protocols []string
		want      bool
	}{
		{"websocket", []string{"derp"}, true},
		{"WebSocket", []string{"chat", "derp"}, true},
		{"websocket", []string{"chat, derp"}, true},
		{"WebSocket", nil, false}, // a very old client that speaks DERP
		{"websocket", []string{"chat"}, false},
		{"DERP", []string{"derp"}, false},
		{"", []string{"derp"}, false},
	} {
		r := &http.Request{Header: http.Header{"Upgrade": {c.upgrade}, "Sec-Websocket-Protocol": c.protocols}}
		if got := websocket.IsUpgrade(r); got != c.want {
			t.Errorf("Upgrade %q with %q: %v", c.upgrade, c.protocols, got)
		}
	}
}

// TestMessages: DERP-100, DERP-101: borders of messages and frames mean
// nothing, and large messages are taken.
func TestMessages(t *testing.T) {
	large := bytes.Repeat([]byte("l"), 128<<10)
	for name, c := range map[string]struct {
		frames [][]byte
		want   string
	}{
		"one":        {[][]byte{frame(opFinal|opBinary, []byte("hello"))}, "hello"},
		"two":        {[][]byte{frame(opFinal|opBinary, []byte("hel")), frame(opFinal|opBinary, []byte("lo"))}, "hello"},
		"empty":      {[][]byte{frame(opFinal|opBinary, nil), frame(opFinal|opBinary, []byte("hello"))}, "hello"},
		"fragmented": {[][]byte{frame(opBinary, []byte("he")), frame(opFinal|opPing, nil), frame(opFinal|opContinue, []byte("llo"))}, "hello"},
		"128 KiB":    {[][]byte{frame(opFinal|opBinary, large)}, string(large)},
	} {
		t.Run(name, func(t *testing.T) {
			a, s := serve(t, httptest.NewServer)
			r := knock(t, s, offersDERP)
			server := a.accepted(t)
			go r.Write(bytes.Join(c.frames, nil))
			got := make([]byte, len(c.want))
			if _, err := io.ReadFull(server, got); err != nil || string(got) != c.want {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestBadMessages: DERP-100: what ends a connection, and with which code.
func TestBadMessages(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		code  uint16
	}{
		"text":        {frame(opFinal|opText, []byte("hello")), 1003},
		"above 1 MiB": {frame(opFinal|opBinary, make([]byte, 1<<20+1)), 1009},
		"compressed":  {frame(opFinal|0x40|opBinary, []byte("hello")), 1002},
	} {
		t.Run(name, func(t *testing.T) {
			a, s := serve(t, httptest.NewServer)
			r := knock(t, s, offersDERP)
			server := a.accepted(t)
			read := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, server)
				read <- err
				server.Close()
			}()
			go r.Write(c.frame)
			r.expectClose(t, c.code)
			if err := <-read; err == nil {
				t.Error("the server read an ordinary end")
			}
		})
	}
}

// TestCloseCodes: DERP-100: 1000 and 1001 are ordinary ends, others are not.
func TestCloseCodes(t *testing.T) {
	for code, ordinary := range map[uint16]bool{1000: true, 1001: true, 1002: false, 1011: false} {
		a, s := serve(t, httptest.NewServer)
		r := knock(t, s, offersDERP)
		server := a.accepted(t)
		r.Write(frame(opFinal|opClose, binary.BigEndian.AppendUint16(nil, code)))
		if _, err := server.Read(make([]byte, 1)); errors.Is(err, io.EOF) != ordinary || err == nil {
			t.Errorf("code %d reads as %v", code, err)
		}
		r.expectClose(t, code)
	}
}
