package derp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/key"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// vectors reads testdata/vectors.txt.
func vectors(tb testing.TB) map[string][]byte {
	tb.Helper()
	text, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		tb.Fatal(err)
	}
	hexes, all := map[string]string{}, map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		for n, v := range hexes {
			value = strings.ReplaceAll(value, "<"+n+">", v)
		}
		hexes[name] = strings.ReplaceAll(value, " ", "")
		if all[name], err = hex.DecodeString(hexes[name]); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
	}
	if len(all) != 22 {
		tb.Fatalf("%d vectors, want 22", len(all))
	}
	return all
}

func vectorKey(tb testing.TB, v map[string][]byte, name string) key.NodePublic {
	tb.Helper()
	return key.NodePublicFromRaw([32]byte(v[name]))
}

// TestVectors: DERP-166: what is not sealed is encoded as in the vectors.
func TestVectors(t *testing.T) {
	v := vectors(t)
	client, server := vectorKey(t, v, "client"), vectorKey(t, v, "server")
	ping := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	for name, got := range map[string][]byte{
		"ServerKey":     AppendServerKey(nil, server),
		"SendPacket":    AppendSendPacket(nil, client, []byte("hi")),
		"RecvPacket":    AppendRecvPacket(nil, client, []byte("hi")),
		"KeepAlive":     AppendFrame(nil, FrameKeepAlive, nil),
		"NotePreferred": AppendNotePreferred(nil, true),
		"NotPreferred":  AppendNotePreferred(nil, false),
		"PeerGone":      AppendPeerGone(nil, client, GoneNotHere),
		"PeerPresent":   AppendPeerPresent(nil, PeerPresent{client, netip.MustParseAddrPort("127.0.0.1:51254"), PresentRegular}),
		"ForwardPacket": AppendForwardPacket(nil, client, server, []byte("fwd")),
		"WatchConns":    AppendFrame(nil, FrameWatchConns, nil),
		"ClosePeer":     AppendClosePeer(nil, client),
		"Ping":          AppendPing(nil, FramePing, ping),
		"Pong":          AppendPing(nil, FramePong, ping),
		"Healthy":       AppendFrame(nil, FrameHealth, nil),
		"Restarting":    AppendRestarting(nil, Restarting{time.Second, 5 * time.Second}),
	} {
		if !bytes.Equal(got, v[name]) {
			t.Errorf("%s\n got %x\nwant %x", name, got, v[name])
		}
	}
}

// TestLoginVectors: the sealed frames open, to what was sealed.
func TestLoginVectors(t *testing.T) {
	v := vectors(t)
	clientPrivate := key.NodePrivateFromRaw([32]byte(v["client-private"]))
	serverPrivate := key.NodePrivateFromRaw([32]byte(v["server-private"]))
	client, server := vectorKey(t, v, "client"), vectorKey(t, v, "server")
	if got, err := ParseServerKey(v["ServerKey"][HeaderSize:]); err != nil || got != server {
		t.Errorf("ServerKey %v, %v", got, err)
	}
	got, info, err := ParseClientInfo(serverPrivate, v["ClientInfo"][HeaderSize:])
	if err != nil || got != client || !reflect.DeepEqual(info, ClientInfo{Version: 2, CanAckPings: true}) {
		t.Errorf("ClientInfo %v %+v, %v", got, info, err)
	}
	si, err := ParseServerInfo(clientPrivate, server, v["ServerInfo"][HeaderSize:])
	if err != nil || si != (ServerInfo{Version: 2}) {
		t.Errorf("ServerInfo %+v, %v", si, err)
	}
	b, err := AppendClientInfo(nil, clientPrivate, server, info)
	if err != nil || len(b) != len(v["ClientInfo"]) {
		t.Errorf("our ClientInfo has %d bytes, %v; want %d", len(b), err, len(v["ClientInfo"]))
	}
	b, err = AppendServerInfo(nil, serverPrivate, client, si)
	if err != nil || len(b) != len(v["ServerInfo"]) {
		t.Errorf("our ServerInfo has %d bytes, %v; want %d", len(b), err, len(v["ServerInfo"]))
	}
	if _, err := AppendClientInfo(nil, clientPrivate, key.NodePublic{}, info); err == nil {
		t.Error("ClientInfo for a zero relay key")
	}
}

// TestLenient: what older or newer peers may send (DERP-13..15, DERP-174).
func TestLenient(t *testing.T) {
	k := key.NewNode().Public()
	raw := k.Raw()
	with := func(hexes string) []byte {
		more, err := hex.DecodeString(hexes)
		if err != nil {
			t.Fatal(err)
		}
		return append(bytes.Clone(raw[:]), more...)
	}
	if got, why, err := ParsePeerGone(with("")); err != nil || got != k || why != GoneDisconnected {
		t.Errorf("PeerGone without a reason: %v %d, %v", got, why, err)
	}
	for name, tt := range map[string]struct {
		b    []byte
		want PeerPresent
	}{
		"key alone":    {with(""), PeerPresent{Peer: k}},
		"cut address":  {with("0011"), PeerPresent{Peer: k}},
		"no flags":     {with("00000000000000000000ffff7f0000010050"), PeerPresent{Peer: k, Addr: netip.MustParseAddrPort("127.0.0.1:80")}},
		"unknown addr": {with("00000000000000000000000000000000000004"), PeerPresent{Peer: k, Flags: PresentProber}},
		"IPv6, longer": {with("20010db8000000000000000000000001005008ffff"), PeerPresent{Peer: k, Addr: netip.MustParseAddrPort("[2001:db8::1]:80"), Flags: PresentNotIdeal}},
	} {
		if got, err := ParsePeerPresent(tt.b); err != nil || got != tt.want {
			t.Errorf("PeerPresent, %s: %+v, %v", name, got, err)
		}
	}
	if got, err := ParsePing(FramePing, []byte("8 bytes and more")); err != nil || string(got[:]) != "8 bytes " {
		t.Errorf("long ping: %q, %v", got, err)
	}
	if r, err := ParseRestarting(bytes.Repeat([]byte{0xff}, 12)); err != nil || r.TryFor != math.MaxUint32*time.Millisecond {
		t.Errorf("long Restarting: %+v, %v", r, err)
	}
	if home, err := ParseNotePreferred([]byte{7}); err != nil || !home {
		t.Errorf("NotePreferred(7): %v, %v", home, err)
	}
	b := AppendRestarting(nil, Restarting{-time.Second, 1 << 60})
	if r, err := ParseRestarting(b[HeaderSize:]); err != nil || r.ReconnectIn != 0 || r.TryFor != math.MaxUint32*time.Millisecond {
		t.Errorf("Restarting out of range: %+v, %v", r, err)
	}
}

// parsers are all that read a payload; each returns what it read, encoded.
var parsers = map[FrameType]func(b []byte) ([]byte, error){
	FrameServerKey: func(b []byte) ([]byte, error) {
		k, err := ParseServerKey(b)
		return AppendServerKey(nil, k), err
	},
	FrameSendPacket: func(b []byte) ([]byte, error) {
		k, data, err := ParsePacket(FrameSendPacket, b)
		return AppendSendPacket(nil, k, data), err
	},
	FrameRecvPacket: func(b []byte) ([]byte, error) {
		k, data, err := ParsePacket(FrameRecvPacket, b)
		return AppendRecvPacket(nil, k, data), err
	},
	FrameForwardPacket: func(b []byte) ([]byte, error) {
		src, dst, data, err := ParseForwardPacket(b)
		return AppendForwardPacket(nil, src, dst, data), err
	},
	FrameNotePreferred: func(b []byte) ([]byte, error) {
		home, err := ParseNotePreferred(b)
		return AppendNotePreferred(nil, home), err
	},
	FramePeerGone: func(b []byte) ([]byte, error) {
		k, why, err := ParsePeerGone(b)
		return AppendPeerGone(nil, k, why), err
	},
	FramePeerPresent: func(b []byte) ([]byte, error) {
		p, err := ParsePeerPresent(b)
		return AppendPeerPresent(nil, p), err
	},
	FrameClosePeer: func(b []byte) ([]byte, error) {
		k, err := ParseClosePeer(b)
		return AppendClosePeer(nil, k), err
	},
	FramePing: func(b []byte) ([]byte, error) {
		data, err := ParsePing(FramePing, b)
		return AppendPing(nil, FramePing, data), err
	},
	FramePong: func(b []byte) ([]byte, error) {
		data, err := ParsePing(FramePong, b)
		return AppendPing(nil, FramePong, data), err
	},
	FrameRestarting: func(b []byte) ([]byte, error) {
		r, err := ParseRestarting(b)
		return AppendRestarting(nil, r), err
	},
}

// TestTruncated: a payload cut short is an error where the vector is the
// smallest legal form, and what else parses comes back the same.
func TestTruncated(t *testing.T) {
	least := map[FrameType]int{
		FrameServerKey: 40, FrameSendPacket: 32, FrameRecvPacket: 32, FrameForwardPacket: 64, FrameNotePreferred: 1,
		FramePeerGone: 32, FramePeerPresent: 32, FrameClosePeer: 32, FramePing: 8, FramePong: 8, FrameRestarting: 8,
	}
	for name, frame := range vectors(t) {
		parse := parsers[FrameType(frame[0])]
		if parse == nil || len(frame) < HeaderSize || strings.Contains(name, "-") || name == "client" || name == "server" || name == "nonce" {
			continue
		}
		payload := frame[HeaderSize:]
		for n := range payload {
			_, err := parse(payload[:n])
			if short := n < least[FrameType(frame[0])]; short != (err != nil) {
				t.Errorf("%s cut to %d bytes: error %v", name, n, err)
			}
		}
		if again, err := parse(payload); err != nil || !bytes.Equal(again, frame) {
			t.Errorf("%s came back as %x, %v", name, again, err)
		}
	}
}

// TestTooLarge: DERP-08.
func TestTooLarge(t *testing.T) {
	for name, err := range map[string]error{
		"packet":      second(ParsePacket(FrameSendPacket, make([]byte, key.Size+MaxPacketSize+1))),
		"forwarded":   fourth(ParseForwardPacket(make([]byte, 2*key.Size+MaxPacketSize+1))),
		"ClosePeer":   first(ParseClosePeer(make([]byte, key.Size+1))),
		"preferred":   first(ParseNotePreferred([]byte{1, 1})),
		"client info": second(ParseClientInfo(key.NewNode(), make([]byte, maxClientInfo+1))),
		"server info": first(ParseServerInfo(key.NewNode(), key.NewNode().Public(), make([]byte, maxServerInfo+1))),
		"zero key":    first(ParseServerKey(AppendServerKey(nil, key.NodePublic{})[HeaderSize:])),
		"magic":       first(ParseServerKey(make([]byte, 40))),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func first[A any](_ A, err error) error                { return err }
func second[A, B any](_ A, _ B, err error) error       { return err }
func fourth[A, B, C any](_ A, _ B, _ C, e error) error { return e }

func TestBadLoginJSON(t *testing.T) {
	server, client := key.NewNode(), key.NewNode()
	raw := client.Public().Raw()
	info := append(raw[:], client.SealTo(server.Public(), []byte(`{"version":"2"}`))...)
	if _, _, err := ParseClientInfo(server, info); err == nil {
		t.Error("ClientInfo that is no JSON of ours")
	}
	if _, err := ParseServerInfo(client, server.Public(), server.SealTo(client.Public(), []byte("{"))); err == nil {
		t.Error("ServerInfo that is no JSON")
	}
	if _, err := ParseServerInfo(client, client.Public(), server.SealTo(client.Public(), []byte("{}"))); err == nil {
		t.Error("ServerInfo sealed by another key")
	}
}

func TestIsDisco(t *testing.T) {
	msg := "TS\U0001f4ac" + strings.Repeat("x", 56)
	for data, want := range map[string]bool{msg: true, msg + "more": true, msg[:61]: false, "X" + msg: false, "": false} {
		if IsDisco([]byte(data)) != want {
			t.Errorf("%q: IsDisco = %v", data, !want)
		}
	}
}

func TestFrameTypeString(t *testing.T) {
	if got := FrameSendPacket.String() + " " + FrameType(0x77).String(); got != "SendPacket 0x77" {
		t.Error(got)
	}
}

// TestFrameReader reads the same frames in pieces of many sizes.
func TestFrameReader(t *testing.T) {
	var stream []byte
	sizes := []int{0, 1, 100, readIdle - HeaderSize, readIdle, 3 * readIdle, MaxPacketSize, 1, MaxFrame, 7, 20000, 20000, 20000}
	for i, n := range sizes {
		stream = AppendFrame(stream, FrameType(i), bytes.Repeat([]byte{byte(i)}, n))
	}
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(stream),
		"bytes":    iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":   iotest.HalfReader(bytes.NewReader(stream)),
		"with EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		fr := NewFrameReader(r, nil)
		for i, want := range sizes {
			typ, n, err := fr.Header()
			if err != nil || typ != FrameType(i) || int(n) != want {
				t.Fatalf("%s: frame %d: %v of %d, %v; want %d", name, i, typ, n, err, want)
			}
			if i%3 == 2 {
				if err := fr.Discard(n); err != nil {
					t.Fatalf("%s: frame %d: %v", name, i, err)
				}
				continue
			}
			b, err := fr.Payload(n)
			if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, want)) {
				t.Fatalf("%s: frame %d: %d bytes, %v", name, i, len(b), err)
			}
		}
		if _, _, err := fr.Header(); err != io.EOF {
			t.Errorf("%s: at the end: %v, want EOF", name, err)
		}
	}
}

// TestFrameReaderCut: a stream that ends inside a frame.
func TestFrameReaderCut(t *testing.T) {
	frame := AppendFrame(nil, FramePing, []byte("12345678"))
	for n := 1; n < len(frame); n++ {
		fr := NewFrameReader(bytes.NewReader(frame[n/2:n]), frame[:n/2])
		_, size, err := fr.Header()
		if err == nil {
			_, err = fr.Payload(size)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	fr := NewFrameReader(bytes.NewReader(AppendHeader(nil, FramePing, 100)), nil)
	if _, n, err := fr.Header(); err != nil || !errors.Is(fr.Discard(n), io.ErrUnexpectedEOF) {
		t.Errorf("Discard past the end: %v", err)
	}
	if _, err := fr.Payload(MaxFrame + 1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Payload beyond MaxFrame: %v", err)
	}
}

// TestReadBufferSize: the buffer is small when idle, grows under load and
// shrinks again.
func TestReadBufferSize(t *testing.T) {
	pr, pw := io.Pipe()
	defer pw.Close()
	fr := NewFrameReader(pr, nil)
	round := func(frames, size int) {
		b := bytes.Repeat(AppendFrame(nil, FrameHealth, make([]byte, size)), frames)
		go pw.Write(b)
		for range frames {
			_, n, err := fr.Header()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fr.Payload(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(fr.in.buf); n != readIdle {
		t.Errorf("a new buffer has %d bytes, want %d", n, readIdle)
	}
	for range 4 {
		round(50, 1400)
	}
	if n := len(fr.in.buf); n != readBusy {
		t.Errorf("a busy buffer has %d bytes, want %d", n, readBusy)
	}
	for range 2 * readCalm {
		round(1, 10)
	}
	if n := len(fr.in.buf); n != readIdle {
		t.Errorf("a calm buffer has %d bytes, want %d", n, readIdle)
	}
}

// TestCodecAllocs: DERP-166: headers and packets cost no allocation.
func TestCodecAllocs(t *testing.T) {
	k, data := key.NewNode().Public(), make([]byte, 1312)
	buf := make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(100, func() {
		buf = AppendSendPacket(buf[:0], k, data)
		if _, _, err := ParsePacket(FrameSendPacket, buf[HeaderSize:]); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHeader: DERP-07, DERP-166: headers at the end of buffers that are nearly
// full, encoded and read without an allocation.
func TestHeader(t *testing.T) {
	for room := range HeaderSize + 2 {
		full := bytes.Repeat([]byte{0xee}, 64)
		b := AppendHeader(full[:64-room], FramePing, 0x01020304)
		if want := []byte{0x12, 1, 2, 3, 4}; !bytes.Equal(b[64-room:], want) {
			t.Errorf("with room for %d: %x, want %x", room, b[64-room:], want)
		}
		if rest := full[min(64, 64-room+HeaderSize):]; !bytes.Equal(rest, bytes.Repeat([]byte{0xee}, len(rest))) || room < HeaderSize && full[63] != 0xee {
			t.Errorf("with room for %d: bytes around the header have changed: %x", room, full)
		}
		typ, n, ok := ParseHeader(b[64-room:][:min(room, HeaderSize)])
		if ok != (room >= HeaderSize) || ok && (typ != FramePing || n != 0x01020304) {
			t.Errorf("read with %d bytes: %v of %d, %v", room, typ, n, ok)
		}
	}
	one := AppendFrame(nil, FramePing, make([]byte, readIdle/3)) // headers lie across the buffer's end
	stream := bytes.NewReader(bytes.Repeat(one, 300))
	fr := NewFrameReader(stream, nil)
	buf := make([]byte, 0, HeaderSize)
	if n := testing.AllocsPerRun(200, func() {
		typ, n, err := fr.Header()
		if err != nil || typ != FramePing || int(n) != readIdle/3 || fr.Discard(n) != nil {
			t.Fatal(typ, n, err)
		}
		buf = AppendHeader(buf[:0], typ, int(n))
	}); n >= 1 { // the buffer itself grows once
		t.Errorf("%v allocations", n)
	}
}

// FuzzFrames: any stream is read to an end; what parses is encoded to a frame
// that parses to the same.
func FuzzFrames(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b, uint8(len(b)))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		n := min(int(cut), len(stream))
		fr := NewFrameReader(bytes.NewReader(stream[n:]), stream[:n])
		for {
			typ, n, err := fr.Header()
			if err != nil {
				return
			}
			if n > MaxFrame {
				return
			}
			payload, err := fr.Payload(n)
			if err != nil {
				return
			}
			parse := parsers[typ]
			if parse == nil {
				continue
			}
			b, err := parse(payload)
			if err != nil {
				continue
			}
			if again, err := parse(b[HeaderSize:]); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%v %x came back as %x, %v", typ, b, again, err)
			}
		}
	})
}

// FuzzLogin: sealed frames of any content.
func FuzzLogin(f *testing.F) {
	f.Add([]byte(`{"version":2,"CanAckPings":true}`))
	f.Add([]byte(`{"meshKey":"00","version":-1,"AppName":"x","TokenBucketBytesPerSecond":1}`))
	server, client := key.NewNode(), key.NewNode()
	raw := client.Public().Raw()
	f.Fuzz(func(t *testing.T, msg []byte) {
		b := append(raw[:], client.SealTo(server.Public(), msg)...)
		if k, info, err := ParseClientInfo(server, b); err == nil {
			again, err := AppendClientInfo(nil, client, server.Public(), info)
			if err != nil || k != client.Public() {
				t.Fatal(k, err)
			}
			if _, same, err := ParseClientInfo(server, again[HeaderSize:]); err != nil || !reflect.DeepEqual(same, info) {
				t.Errorf("%+v came back as %+v, %v", info, same, err)
			}
		}
		ParseClientInfo(server, msg)
		ParseServerInfo(client, server.Public(), msg)
		ParseServerInfo(client, server.Public(), server.SealTo(client.Public(), msg))
	})
}
