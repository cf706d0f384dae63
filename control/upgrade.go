package control

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

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

// Error tells what the server answered in place of a handshake.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("control server refused the handshake: %q", e.Text)
}

// errHandshakeClosed is how a server that finds the client too old ends a
// connection: Headscale closes before its response is flushed (section 7.5).
var errHandshakeClosed = errors.New("server closed the connection during the handshake: it may not support this client's capability version")

// upgrade sends the upgrade request for h to u, at another address than that of
// u's host if one is given, and finishes the handshake. Everything until then
// ends with ctx.
func (d *dialer) upgrade(ctx context.Context, u *url.URL, at netip.Addr, h *ClientHandshake) (*Conn, error) {
	t := d.transport(d.unprovenTLS(), at, false)
	defer t.CloseIdleConnections()
	var local net.Addr
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			local = conn.LocalAddr() // the transport serves this one request, so it dials once
		}
		return conn, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{
		"Upgrade":       {upgradeProtocol},
		"Connection":    {"upgrade"},
		handshakeHeader: {base64.StdEncoding.EncodeToString(h.Initiation())},
		"User-Agent":    {""}, // none
	}
	for name, values := range d.headers {
		if _, ours := req.Header[name]; !ours {
			req.Header[name] = values
		}
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	stream, err := switched(resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	br := bufio.NewReaderSize(stream, maxRecord)
	secrets, err := readResponse(br, h)
	if !stop() || err != nil {
		stream.Close()
		return nil, cmp.Or(ctx.Err(), err)
	}
	return NewConn(&switchedConn{stream, local}, br, secrets), nil
}

// switched accepts 101 with our protocol and nothing else (CTL-06). What the
// HTTP reader has buffered is part of the stream it returns.
func switched(resp *http.Response) (io.ReadWriteCloser, error) {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, &upgradeError{code: resp.StatusCode, text: readText(resp.Body)}
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if got := resp.Header.Get("Upgrade"); !ok || !strings.EqualFold(got, upgradeProtocol) {
		return nil, fmt.Errorf("upgrade response: switched to %q", got)
	}
	return stream, nil
}

// A switchedConn is what net/http leaves of a connection that has switched
// protocols. It has no deadlines: whoever holds it closes it.
type switchedConn struct {
	stream io.ReadWriteCloser
	local  net.Addr
}

func (c *switchedConn) Read(b []byte) (int, error)     { return c.stream.Read(b) }
func (c *switchedConn) Write(b []byte) (int, error)    { return c.stream.Write(b) }
func (c *switchedConn) Close() error                   { return c.stream.Close() }
func (c *switchedConn) LocalAddr() net.Addr            { return c.local }
func (*switchedConn) RemoteAddr() net.Addr             { return controlAddr{} }
func (*switchedConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (*switchedConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (*switchedConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// A controlAddr stands for the server's address, which a proxy may hide.
type controlAddr struct{}

func (controlAddr) Network() string { return "tcp" }
func (controlAddr) String() string  { return "control" }

// An upgradeError is an answer of an HTTP server that is no control server, or
// stands in front of one.
type upgradeError struct {
	code int
	text string
}

func (e *upgradeError) Error() string {
	return fmt.Sprintf("upgrade refused: status %d: %q (is a proxy dropping the Upgrade header?)", e.code, e.text)
}

// readText reads the start of an error body for people.
func readText(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, maxErrorBody)) // a hint: what has arrived is enough
	return shorten(b)
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
