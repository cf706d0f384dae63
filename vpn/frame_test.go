package vpn

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// A golden frame is one of the document.
type golden struct {
	sender, name string
	frame        []byte
}

// goldens reads the frames of the document.
func goldens(t testing.TB) (all []golden) {
	t.Helper()
	text, err := os.ReadFile("testdata/frames.txt")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		f := strings.Fields(l)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		b, err := hex.DecodeString(strings.Join(f[2:], ""))
		if err != nil {
			t.Fatalf("%s: %v", f[1], err)
		}
		all = append(all, golden{f[0], f[1], b})
	}
	if len(all) == 0 {
		t.Fatal("no golden frames")
	}
	return all
}

// messages are those that the golden frames hold, made as the package makes them.
func messages() map[string]message {
	settings := NetworkSettings{MTU: 1280, IPv4: &FamilySettings{
		Addrs: []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}, Included: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
	}}
	return map[string]message{
		"start": &wire.ManagerMessage{Rpc: request(1), Msg: &wire.ManagerMessage_Start{
			Start: &wire.StartRequest{TunnelFileDescriptor: 5, CoderUrl: "https://c.example", ApiToken: "t0k"}}},
		"start-ok": &wire.TunnelMessage{Rpc: replyTo(1), Msg: &wire.TunnelMessage_Start{Start: &wire.StartResponse{Success: true}}},
		"start-failed": &wire.TunnelMessage{Rpc: replyTo(1), Msg: &wire.TunnelMessage_Start{
			Start: &wire.StartResponse{ErrorMessage: "no"}}},
		"network-settings": &wire.TunnelMessage{Rpc: request(1), Msg: &wire.TunnelMessage_NetworkSettings{NetworkSettings: settings.toWire()}},
		"network-settings-ok": &wire.ManagerMessage{Rpc: replyTo(1), Msg: &wire.ManagerMessage_NetworkSettings{
			NetworkSettings: &wire.NetworkSettingsResponse{Success: true}}},
		"get-peer-update": &wire.ManagerMessage{Rpc: request(2), Msg: &wire.ManagerMessage_GetPeerUpdate{GetPeerUpdate: new(wire.GetPeerUpdate)}},
		"no-peers":        &wire.TunnelMessage{Rpc: replyTo(2), Msg: &wire.TunnelMessage_PeerUpdate{PeerUpdate: new(Update).toWire()}},
		"stop":            &wire.ManagerMessage{Rpc: request(3), Msg: &wire.ManagerMessage_Stop{Stop: new(wire.StopRequest)}},
		"stop-ok":         &wire.TunnelMessage{Rpc: replyTo(3), Msg: &wire.TunnelMessage_Stop{Stop: &wire.StopResponse{Success: true}}},
		"wake":            &wire.ManagerMessage{Rpc: request(4), Msg: &wire.ManagerMessage_Wake{Wake: new(wire.WakeRequest)}},
		"tunnel wake":     &wire.TunnelMessage{Rpc: replyTo(4), Msg: &wire.TunnelMessage_Wake{Wake: new(wire.WakeResponse)}},
		"log-info":        &wire.TunnelMessage{Msg: &wire.TunnelMessage_Log{Log: &wire.Log{Level: wire.Log_INFO, Message: "up"}}},
		"log-debug":       &wire.TunnelMessage{Msg: &wire.TunnelMessage_Log{Log: &wire.Log{Message: "up"}}},
		"empty-reply":     &wire.TunnelMessage{Rpc: replyTo(9)},
	}
}

// VT-03, VPN-21: the frames of the document, byte for byte, in both directions.
func TestGoldenFrames(t *testing.T) {
	all := messages()
	for _, g := range goldens(t) {
		want := all[g.name]
		if g.sender == "tunnel" && g.name == "wake" {
			want = all["tunnel wake"]
		}
		if want == nil {
			t.Errorf("%s %s: no message", g.sender, g.name)
			continue
		}
		if got, err := encode(want); err != nil || !bytes.Equal(got, g.frame) {
			t.Errorf("%s %s: encoded as\n%x, %v, want\n%x", g.sender, g.name, got, err, g.frame)
		}
		got := decoded(t, g.sender, g.frame)
		if !proto.Equal(got, want) {
			t.Errorf("%s %s: decoded as %v", g.sender, g.name, got)
		}
	}
}

// decoded reads one frame of a sender.
func decoded(t *testing.T, sender string, frame []byte) message {
	t.Helper()
	b, err := readFrame(iotest.OneByteReader(bytes.NewReader(frame))) // VPN-12
	if err != nil {
		t.Fatal(err)
	}
	decode := decodeTunnel
	if sender == "manager" {
		decode = decodeManager
	}
	m, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// VT-04: the end of the stream between frames is clean, inside of one it is not.
func TestReadFrameTruncated(t *testing.T) {
	for _, g := range goldens(t) {
		for n := range g.frame {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, err := readFrame(bytes.NewReader(g.frame[:n])); !errors.Is(err, want) {
				t.Errorf("%s: %d of %d bytes: %v, want %v", g.name, n, len(g.frame), err, want)
			}
		}
	}
}

// VT-04, VPN-11: lengths that no frame has, and no memory for what has not come.
func TestReadFrameLengths(t *testing.T) {
	frame := func(size uint32, body int) io.Reader {
		b := binary.BigEndian.AppendUint32(nil, size)
		return bytes.NewReader(append(b, make([]byte, body)...))
	}
	for _, size := range []uint32{0, maxMessage + 1, 1 << 31, 1<<32 - 1} {
		if _, err := readFrame(frame(size, 100)); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if b, err := readFrame(frame(maxMessage, maxMessage)); err != nil || len(b) != maxMessage {
		t.Errorf("the longest frame: %d bytes, %v", len(b), err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readFrame(frame(maxMessage, 1000)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame that is cut off: %v", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were allocated for 1000", grown)
	}
}

// VPN-11: what is too long is an error of the sender alone.
func TestEncodeTooLong(t *testing.T) {
	m := &wire.TunnelMessage{Msg: &wire.TunnelMessage_Log{Log: &wire.Log{Message: strings.Repeat("x", maxMessage)}}}
	if b, err := encode(m); err == nil {
		t.Errorf("a frame of %d bytes", len(b))
	}
	m.GetLog().Message = m.GetLog().Message[:maxMessage-16]
	if _, err := encode(m); err != nil {
		t.Error(err)
	}
}

// VT-03, VPN-16: fields, members of the oneof and numbers of enums that are newer
// than we are.
func TestDecodeNewer(t *testing.T) {
	b, err := proto.Marshal(&wire.TunnelMessage{Rpc: request(7)})
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendTag(b, 99, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte("newer"))
	m, err := decodeTunnel(b)
	if err != nil || m.GetRpc().GetMsgId() != 7 || m.(*wire.TunnelMessage).GetMsg() != nil {
		t.Errorf("got %v, %v", m, err)
	}
	b, err = proto.Marshal(&wire.Workspace{Id: make([]byte, 16), Status: 42})
	if err != nil {
		t.Fatal(err)
	}
	u := protowire.AppendTag(nil, 1, protowire.BytesType)
	u = protowire.AppendBytes(u, b)
	update := new(wire.PeerUpdate)
	if err := proto.Unmarshal(u, update); err != nil {
		t.Fatal(err)
	}
	got, err := updateOf(update)
	if err != nil || len(got.Workspaces) != 1 || got.Workspaces[0].Status.String() != "42" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// VPN-17: proto3 texts are UTF-8; a peer that sends others speaks another
// protocol.
func TestDecodeRefusesInvalidText(t *testing.T) {
	b := protowire.AppendTag(nil, 2, protowire.BytesType) // Log
	b = protowire.AppendBytes(b, append([]byte{0x12, 2}, 0xff, 0xfe))
	if m, err := decodeTunnel(b); err == nil {
		t.Errorf("got %v", m)
	}
}

func FuzzFrame(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.frame)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, decode := range []func([]byte) (message, error){decodeManager, decodeTunnel} {
			m, err := decode(body)
			if err != nil {
				continue
			}
			frame, err := encode(m)
			if err != nil {
				t.Fatal(err)
			}
			if len(frame) == lengthSize {
				continue // an empty message, which is never sent
			}
			again, err := readFrame(bytes.NewReader(frame))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := decode(again); err != nil || !proto.Equal(m, n) {
				t.Errorf("%v became %v, %v", m, n, err)
			}
		}
	})
}
