package vpn

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// A script is a manager that is played by a test, byte by byte.
type script struct {
	t      *testing.T
	stream Stream
	in     *bufio.Reader
	served chan error // what became of the tunnel
	heard  []byte     // every frame that was read
}

// play starts a tunnel in a bubble, and greets it.
func play(t *testing.T, tunnel *Tunnel) *script {
	t.Helper()
	s := silent(t, tunnel)
	s.write("codervpn manager 1.3\n")
	if line, err := readLine(s.in); err != nil || line != "codervpn tunnel 1.3" {
		t.Fatalf("header %q, %v", line, err)
	}
	return s
}

// silent starts a tunnel, and does not greet it.
func silent(t *testing.T, tunnel *Tunnel) *script {
	own, peer := streams()
	s := &script{t: t, stream: peer, in: buffered(peer), served: make(chan error, 1)}
	go func() { s.served <- tunnel.Serve(t.Context(), own) }()
	return s
}

func (s *script) write(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stream, text); err != nil {
		s.t.Fatal(err)
	}
}

// send sends a message of the manager.
func (s *script) send(m *wire.ManagerMessage) {
	s.t.Helper()
	s.write(string(frameOf(s.t, m)))
}

// frameOf is a message as sent.
func frameOf(t *testing.T, m message) []byte {
	t.Helper()
	frame, err := encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// next is the next message of the tunnel that is no log.
func (s *script) next() *wire.TunnelMessage {
	s.t.Helper()
	for {
		m := s.nextOfAny()
		if m.GetLog() == nil {
			return m
		}
	}
}

func (s *script) nextOfAny() *wire.TunnelMessage {
	s.t.Helper()
	b, err := readFrame(s.in)
	if err != nil {
		s.t.Fatal(err)
	}
	s.heard = append(s.heard, b...)
	m, err := decodeTunnel(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.(*wire.TunnelMessage)
}

// eof expects the tunnel to end the stream, and returns what Serve has said.
func (s *script) eof() error {
	s.t.Helper()
	if b, err := readFrame(s.in); !errors.Is(err, io.EOF) {
		s.t.Errorf("a frame of %d bytes, %v, in place of the end", len(b), err)
	}
	s.stream.Close()
	return <-s.served
}

// The manager's messages.
func start(id uint64, o StartOptions) *wire.ManagerMessage {
	r := &wire.StartRequest{CoderUrl: o.ControlURL, ApiToken: o.Token, TunnelFileDescriptor: int32(o.Descriptor)}
	for name := range o.Headers {
		r.Headers = append(r.Headers, &wire.StartRequest_Header{Name: name, Value: o.Headers[name][0]})
	}
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_Start{Start: r}}
}

func stop(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_Stop{Stop: new(wire.StopRequest)}}
}

func askPeers(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_GetPeerUpdate{GetPeerUpdate: new(wire.GetPeerUpdate)}}
}

func wake(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_Wake{Wake: new(wire.WakeRequest)}}
}

func settingsOK(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: replyTo(id), Msg: &wire.ManagerMessage_NetworkSettings{NetworkSettings: &wire.NetworkSettingsResponse{Success: true}}}
}

// started expects the answer to Start.
func (s *script) started(id uint64, want string) {
	s.t.Helper()
	m := s.next()
	r := m.GetStart()
	if r == nil || m.GetRpc().GetResponseTo() != id || r.GetSuccess() != (want == "") || !strings.Contains(r.GetErrorMessage(), want) {
		s.t.Errorf("got %v, want the answer to start %d with %q", m, id, want)
	}
	if r.GetSuccess() == (r.GetErrorMessage() != "") {
		s.t.Errorf("VPN-25: %v", r)
	}
}

func (s *script) stopped(id uint64, want string) {
	s.t.Helper()
	m := s.next()
	r := m.GetStop()
	if r == nil || m.GetRpc().GetResponseTo() != id || r.GetSuccess() != (want == "") || !strings.Contains(r.GetErrorMessage(), want) {
		s.t.Errorf("got %v, want the answer to stop %d with %q", m, id, want)
	}
}

// bubble is a test in a bubble, with a node of two peers.
func bubble(t *testing.T, f func(t *testing.T, n *testNode, tunnel *Tunnel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(testNetmap(testPeer(1), testPeer(2)))
		f(t, n, &Tunnel{NewNode: nodes(n)})
	})
}
