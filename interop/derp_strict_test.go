package interop

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// A strictReader is a client that hangs up where tailscale-rs does: on any frame
// but ServerKey and ServerInfo at login, and KeepAlive, Ping, PeerGone with a
// reason that it knows, and RecvPacket afterwards (DERP-18).
type strictReader struct {
	conn    net.Conn
	in      *bufio.Reader
	private key.NodePrivate
	server  key.NodePublic
}

// strictLogin logs in over a connection that carries HTTP.
func strictLogin(conn net.Conn, private key.NodePrivate) (*strictReader, error) {
	r := &strictReader{conn: conn, in: bufio.NewReader(conn), private: private}
	if _, err := io.WriteString(conn, "GET /derp HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("HTTP status %q, want 101", resp.Status)
	}
	return r, r.login()
}

// login takes exactly the two frames of a login.
func (r *strictReader) login() (err error) {
	b, err := r.expect(derp.FrameServerKey)
	if err != nil {
		return err
	}
	if r.server, err = derp.ParseServerKey(b); err != nil {
		return err
	}
	hello, err := derp.AppendClientInfo(nil, r.private, r.server, derp.ClientInfo{Version: derp.ProtocolVersion, CanAckPings: true})
	if err != nil {
		return err
	}
	if err := r.write(hello); err != nil {
		return err
	}
	if b, err = r.expect(derp.FrameServerInfo); err != nil {
		return err
	}
	info, err := derp.ParseServerInfo(r.private, r.server, b)
	if err == nil && info.Version != derp.ProtocolVersion {
		err = fmt.Errorf("ServerInfo with version %d, want %d", info.Version, derp.ProtocolVersion)
	}
	return err
}

func (r *strictReader) expect(want derp.FrameType) ([]byte, error) {
	got, b, err := r.frame()
	if err == nil && got != want {
		err = fmt.Errorf("%v frame at login, want %v", got, want)
	}
	return b, err
}

// frame reads one frame.
func (r *strictReader) frame() (derp.FrameType, []byte, error) {
	var head [derp.HeaderSize]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r.in, b)
	return derp.FrameType(head[0]), b, err
}

// A strictFrame is a frame that the strict reader took.
type strictFrame struct {
	what   derp.FrameType
	from   key.NodePublic // of a RecvPacket and a PeerGone
	reason derp.GoneReason
	data   string
}

// next takes one frame, and fails on any that tailscale-rs does not know.
func (r *strictReader) next() (strictFrame, error) {
	t, b, err := r.frame()
	f := strictFrame{what: t}
	if err != nil {
		return f, err
	}
	switch t {
	case derp.FrameKeepAlive, derp.FramePing:
		return f, nil
	case derp.FrameRecvPacket:
		var data []byte
		f.from, data, err = derp.ParsePacket(t, b)
		f.data = string(data)
		return f, err
	case derp.FramePeerGone:
		if len(b) < key.Size+1 {
			return f, fmt.Errorf("PeerGone frame of %d bytes, want %d at least", len(b), key.Size+1)
		}
		if f.from, f.reason, err = derp.ParsePeerGone(b); err == nil && f.reason > derp.GoneNotHere {
			err = fmt.Errorf("PeerGone frame with reason %#x, want 0 or 1", byte(f.reason))
		}
		return f, err
	}
	return f, fmt.Errorf("%v frame after login, which tailscale-rs does not know", t)
}

func (r *strictReader) write(frames []byte) error {
	_, err := r.conn.Write(frames)
	return err
}

// await takes frames until one is as wanted.
func (r *strictReader) await(t *testing.T, want strictFrame) {
	t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(messageWait))
	for {
		f, err := r.next()
		if err != nil {
			t.Fatalf("%v before %+v came", err, want)
		}
		if f == want {
			return
		}
	}
}

// The strict reader refuses what tailscale-rs refuses: the test of the test
// below.
func TestStrictReaderIsStrict(t *testing.T) {
	peerGone := derp.AppendPeerGone(nil, key.NewNode().Public(), derp.GoneNotHere)
	for _, c := range []struct {
		name  string
		frame []byte
		ok    bool
	}{
		{"KeepAlive", derp.AppendFrame(nil, derp.FrameKeepAlive, nil), true},
		{"PeerGone", peerGone, true},
		{"PeerGone without a reason", derp.AppendFrame(nil, derp.FramePeerGone, peerGone[derp.HeaderSize:len(peerGone)-1]), false},
		{"PeerGone of a mesh", derp.AppendPeerGone(nil, key.NewNode().Public(), derp.GoneMeshConnBroke), false},
		{"Health", derp.AppendFrame(nil, derp.FrameHealth, nil), false},
		{"Pong", derp.AppendPing(nil, derp.FramePong, [8]byte{1}), false},
		{"ServerInfo", derp.AppendFrame(nil, derp.FrameServerInfo, nil), false},
	} {
		here, there := net.Pipe()
		go there.Write(c.frame)
		r := &strictReader{conn: here, in: bufio.NewReader(here)}
		if _, err := r.next(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		here.Close()
	}
}

// Our relay sends nothing that tailscale-rs would hang up on: under traffic,
// with a second connection of the same key, with a destination that is not
// there, and when peers depart, twice (DERP-18, DERP-23, DERP-69..71).
func TestOurRelayForStrictReader(t *testing.T) {
	t.Parallel()
	rl := startRelay(t, peer.Ours, plainHTTP)
	private := key.NewNode()
	conn, err := net.Dial("tcp", rl.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	strict, err := strictLogin(conn, private)
	if err != nil {
		t.Fatal(err)
	}
	absent := key.NewNode().Public()
	if err := strict.write(derp.AppendSendPacket(nil, absent, discoLike)); err != nil {
		t.Fatal(err)
	}
	strict.await(t, strictFrame{what: derp.FramePeerGone, from: absent, reason: derp.GoneNotHere})
	for range 2 { // the second departure is told like the first (DERP-70)
		departs(t, rl, strict)
	}

	again, err := net.Dial("tcp", rl.address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	second, err := strictLogin(again, private)
	if err != nil {
		t.Fatal(err)
	}
	departs(t, rl, second)
	again.Close()
	if err := strict.write(derp.AppendSendPacket(nil, private.Public(), []byte("to myself"))); err != nil {
		t.Fatal(err)
	}
	strict.await(t, strictFrame{what: derp.FrameRecvPacket, from: private.Public(), data: "to myself"})
}

// departer is the key of departs: the same one each time.
var departer = key.NewNode()

// departs has a reference client come, send to the strict reader, and go.
func departs(t *testing.T, rl *testRelay, strict *strictReader) {
	t.Helper()
	c := newRelayClient(t, peer.Reference, rl, clientOptions{private: departer})
	for i := range 20 {
		if err := c.Send(strict.private.Public(), fmt.Appendf(nil, "packet %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	strict.await(t, strictFrame{what: derp.FrameRecvPacket, from: departer.Public(), data: "packet 19"})
	if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	strict.await(t, strictFrame{what: derp.FramePeerGone, from: departer.Public(), reason: derp.GoneDisconnected})
}
