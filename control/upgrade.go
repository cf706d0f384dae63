package control

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/seed94491740/tsnode/key"
)

// What the upgrade request carries (control.md section 3.1).
const (
	upgradeProtocol = "tailscale-control-protocol"
	handshakeHeader = "X-Tailscale-Handshake"
)

// A HandshakeError is a refusal by the server in place of its half of the
// handshake. Text is not authenticated: a hint for people, never acted on.
type HandshakeError struct{ Text string }

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("control server refused the handshake: %q", e.Text)
}

// errHandshakeClosed is how a server that finds the client too old ends a
// connection: Headscale closes before its response is flushed (section 7.5).
var errHandshakeClosed = errors.New("server closed the connection during the handshake: it may not support this client's capability version")

// upgrade sends the upgrade request for h over nc and finishes the handshake.
func upgrade(nc net.Conn, host string, h *ClientHandshake) (*Conn, error) {
	if _, err := io.WriteString(nc, upgradeRequest(host, h)); err != nil {
		return nil, fmt.Errorf("upgrade request: %w", err)
	}
	br := bufio.NewReaderSize(nc, maxRecord*recordsPerWrite)
	if err := readSwitching(br); err != nil {
		return nil, err
	}
	secrets, err := readResponse(br, h)
	if err != nil {
		return nil, err
	}
	return NewConn(nc, br, secrets), nil // what br holds belongs to the Noise stream
}

// upgradeRequest writes the request out: net/http would add headers.
func upgradeRequest(host string, h *ClientHandshake) string {
	return "POST " + PathUpgrade + " HTTP/1.1\r\n" +
		"Host: " + host + "\r\n" +
		"Upgrade: " + upgradeProtocol + "\r\n" +
		"Connection: upgrade\r\n" +
		handshakeHeader + ": " + base64.StdEncoding.EncodeToString(h.Initiation()) + "\r\n" +
		"Content-Length: 0\r\n\r\n"
}

// readSwitching accepts 101 with our protocol and nothing else (CTL-06). An
// endless header block is cut off by limit.
func readSwitching(br *bufio.Reader) error {
	resp, err := readHead(br)
	if err != nil {
		return fmt.Errorf("upgrade response: %w", err)
	}
	switch got := resp.Header.Get("Upgrade"); {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return &upgradeError{status: resp.Status, text: readText(resp.Body)}
	case !strings.EqualFold(got, upgradeProtocol):
		return fmt.Errorf("upgrade response: switched to %q", got)
	}
	return nil
}

// An upgradeError is an answer of an HTTP server that is no control server, or
// stands in front of one.
type upgradeError struct{ status, text string }

func (e *upgradeError) Error() string {
	return fmt.Sprintf("upgrade refused: %s: %q (is a proxy dropping the Upgrade header?)", e.status, e.text)
}

// readHead reads a response head. http.ReadResponse has no limit of its own, so
// the head must fit what the reader can hold.
func readHead(br *bufio.Reader) (*http.Response, error) {
	for n := 1; ; n++ {
		head, err := br.Peek(n)
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return nil, fmt.Errorf("head over %d bytes", br.Size())
			}
			return nil, err
		}
		n = max(n, br.Buffered())
		head, err = br.Peek(n)
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(head), "\r\n\r\n") {
			return http.ReadResponse(br, nil)
		}
		if n >= br.Size() {
			return nil, fmt.Errorf("head over %d bytes", br.Size())
		}
	}
}

// readText reads the start of an error body for people.
func readText(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 200)) // a hint: what has arrived is enough
	return strings.TrimSpace(string(b))
}

// readResponse reads the server's handshake frame; an error frame becomes a
// HandshakeError (CTL-13).
func readResponse(br *bufio.Reader, h *ClientHandshake) (Secrets, error) {
	var frame [ResponseSize]byte
	if _, err := io.ReadFull(br, frame[:frameHeader]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Secrets{}, errHandshakeClosed
		}
		return Secrets{}, fmt.Errorf("noise: read response: %w", err)
	}
	size := int(binary.BigEndian.Uint16(frame[1:]))
	switch {
	case frame[0] == frameError:
		text, _ := io.ReadAll(io.LimitReader(br, int64(min(size, maxErrorText)))) // a hint
		return Secrets{}, &HandshakeError{Text: string(text)}
	case frame[0] != frameResponse || size != ResponseSize-frameHeader:
		return Secrets{}, fmt.Errorf("noise: frame of type %d and %d bytes where the response belongs", frame[0], size)
	}
	if _, err := io.ReadFull(br, frame[frameHeader:]); err != nil {
		return Secrets{}, fmt.Errorf("noise: read response: %w", err)
	}
	return h.Finish(frame[:])
}

// An AcceptedConn is a client's connection as a server has it.
type AcceptedConn struct {
	*Conn
	Machine key.MachinePublic // the client's machine key, proven
	Version uint16            // the client's capability version
}

// Accept answers the upgrade request of a client, as the server: it checks the
// request, takes the connection over from net/http and finishes the handshake.
// On an error before the takeover it has answered the request already.
//
// A server then may send an early payload with WriteEarlyPayload, and serves
// HTTP/2 on the connection:
//
//	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
//	srv.Protocols.SetUnencryptedHTTP2(true)
//	srv.Serve(listenerOf(conn)) // a net.Listener that returns conn once
//
// It decodes bodies into RegisterRequest and MapRequest and answers with
// RegisterResponse and, on the map stream, frames of a FrameWriter.
func Accept(w http.ResponseWriter, r *http.Request, server key.MachinePrivate) (*AcceptedConn, error) {
	refuse := func(text string) (*AcceptedConn, error) {
		http.Error(w, text, http.StatusBadRequest)
		return nil, errors.New("upgrade request: " + text)
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), upgradeProtocol) {
		return refuse("missing or unknown Upgrade protocol")
	}
	initiation, err := base64.StdEncoding.DecodeString(r.Header.Get(handshakeHeader))
	if err != nil || len(initiation) == 0 {
		return refuse("missing or malformed " + handshakeHeader)
	}
	accepted, err := AcceptHandshake(server, initiation)
	if err != nil {
		return refuse(err.Error())
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return refuse("connection cannot be upgraded")
	}
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + upgradeProtocol + "\r\nConnection: upgrade\r\n\r\n"
	if _, err := nc.Write(append([]byte(head), accepted.Response...)); err != nil {
		nc.Close()
		return nil, fmt.Errorf("upgrade response: %w", err)
	}
	return &AcceptedConn{NewConn(nc, rw.Reader, accepted.Secrets), accepted.Machine, accepted.Version}, nil
}
