package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/klauspost/compress/zstd"
)

// stream returns frames with the given bodies.
func streamOf(t testing.TB, compress string, bodies ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	fw, err := NewFrameWriter(&b, compress)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		if err := fw.WriteRaw([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// readFrames reads a stream to its end and returns the bodies before the error.
func readFrames(t testing.TB, compress string, stream []byte) (bodies []string, err error) {
	t.Helper()
	fr := newFrameReader(bytes.NewReader(stream), compress)
	for {
		r, err := fr.next()
		if err != nil {
			return bodies, err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return bodies, err
		}
		if err := fr.finish(); err != nil {
			return bodies, err
		}
		bodies = append(bodies, string(body))
	}
}

func TestFrames(t *testing.T) { // CTL-31
	want := []string{`{"KeepAlive":true}`, `{}`, `{"Domain":"` + strings.Repeat("x", 100_000) + `"}`, `{"KeepAlive":true}`}
	for _, compress := range []string{"", CompressZstd} {
		stream := streamOf(t, compress, want...)
		got, err := readFrames(t, compress, stream)
		if err == nil || !strings.Contains(err.Error(), "EOF") || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q: %d frames, %v", compress, len(got), err)
		}
	}
	if _, err := NewFrameWriter(io.Discard, "gzip"); err == nil {
		t.Error("an unknown compression was accepted")
	}
	var b bytes.Buffer
	if err := WriteMapFrame(&b, &MapResponse{KeepAlive: true}, ""); err != nil || b.String() != "\x12\x00\x00\x00"+`{"KeepAlive":true}` {
		t.Errorf("frame = %q, %v", b.String(), err)
	}
}

func TestFramesCutAnywhere(t *testing.T) {
	for _, compress := range []string{"", CompressZstd} {
		stream := streamOf(t, compress, `{"Domain":"example"}`)
		for i := range stream {
			fr := newFrameReader(bytes.NewReader(stream[:i]), compress)
			r, err := fr.next()
			if err == nil {
				_, err = decodeUpdate(r, nil)
			}
			if err == nil {
				err = fr.finish()
			}
			if err == nil {
				t.Errorf("%q: a frame cut at %d of %d was accepted", compress, i, len(stream))
			}
		}
	}
}

func TestBadFrames(t *testing.T) { // CTL-31, CTL-67
	length := func(n uint32, body string) string {
		return string(binary.LittleEndian.AppendUint32(nil, n)) + body
	}
	enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(16<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	var wide bytes.Buffer
	enc.Reset(&wide)
	enc.Write(bytes.Repeat([]byte(" "), 17<<20))
	enc.Close()
	for name, test := range map[string]struct{ compress, stream, want string }{
		"empty":           {"", length(0, ""), "frame of 0 bytes"},
		"too long":        {"", length(maxFrame+1, "{}"), "limit"},
		"no zstd":         {CompressZstd, length(8, "{      }"), "magic"},
		"window too wide": {CompressZstd, length(uint32(wide.Len()), wide.String()), "window size"},
		"bytes after it":  {CompressZstd, length(uint32(len(streamOf(t, CompressZstd, "{}"))), string(streamOf(t, CompressZstd, "{}")[4:])+"abcd"), ""},
	} {
		if _, err := readFrames(t, test.compress, []byte(test.stream)); err == nil || !strings.Contains(err.Error(), test.want) || strings.HasSuffix(err.Error(), "map stream: EOF") {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}

// TestBomb wants a small frame that decodes to more than the limit to be
// refused, without that much memory.
func TestBomb(t *testing.T) { // CTL-67
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(enc, `{"PeersRemoved":[`)
	zeros := bytes.Repeat([]byte("          "), 1<<17)
	for range maxDecoded/len(zeros) + 1 {
		enc.Write(zeros)
	}
	io.WriteString(enc, `]}`)
	enc.Close()
	stream := append(binary.LittleEndian.AppendUint32(nil, uint32(b.Len())), b.Bytes()...)
	fr := newFrameReader(bytes.NewReader(stream), CompressZstd)
	r, err := fr.next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	if err := fr.finish(); err == nil {
		t.Errorf("%d bytes that decode to more than %d were accepted", b.Len(), maxDecoded)
	}
}

func TestBadUpdates(t *testing.T) {
	for _, body := range []string{
		``, `null`, `[]`, `1`, `{`, `{"Node"`, `{"Node":1}`, `{"Peers":{}}`, `{"Peers":[1]}`, `{"Peers":[`, `{"Peers":[{}`, `{} {}`, `{}x`,
		`{"Node":{"Key":""}}`, `{"PeersRemoved":["a"]}`, `{"OnlineChange":{"x":true}}`, `{"Node":{"CapMap":[]}}`, `{"Node":{"Addresses":["100.64.0.1/33"]}}`,
		`{"PeersChanged":[{"Endpoints":["1.2.3.4"]}]}`,
	} {
		if u, err := decodeUpdate(strings.NewReader(body), nil); err == nil {
			t.Errorf("%q was accepted as %+v", body, u)
		}
	}
	_, err := decodeUpdate(strings.NewReader(`{"Peers":[{"ID":1},{"ID":2,"Key":"nodekey:1"}]}`), nil)
	if err == nil || !strings.Contains(err.Error(), "Peers: node 1") {
		t.Errorf("error %v does not name the input", err)
	}
}

func FuzzMapStream(f *testing.F) {
	for _, compress := range []string{"", CompressZstd} {
		stream := streamOf(f, compress, `{"KeepAlive":true}`, `{"Domain":"x"}`)
		f.Add(stream, compress != "")
		f.Add(stream[:10], compress != "")
	}
	f.Fuzz(func(t *testing.T, stream []byte, compressed bool) {
		compress := ""
		if compressed {
			compress = CompressZstd
		}
		bodies, err := readFrames(t, compress, stream)
		if err == nil {
			t.Fatal("a stream ended without an error")
		}
		if !compressed {
			again := streamOf(t, "", bodies...)
			if !bytes.HasPrefix(stream, again) {
				t.Errorf("read %q of %q", bodies, stream)
			}
		}
	})
}

// FuzzApply feeds two frames to a session: whatever they are, nothing panics,
// and the netmap keeps its promises.
func FuzzApply(f *testing.F) {
	_, bodies := samples(f, "b-*-MapResponse")
	for i := range bodies {
		f.Add(bodies[0], bodies[i])
	}
	f.Add([]byte(`{"Node":{"ID":1}}`), []byte(`{"Peers":[{"ID":3},{"ID":2,"Key":"nodekey:`+strings.Repeat("1", 64)+`"}],"PacketFilters":{"*":null}}`))
	f.Add([]byte(`{"Node":{"ID":1}}`), []byte(`{"PeersChangedPatch":[{"NodeID":1,"Endpoints":[]}],"DERPMap":{"Regions":{"1":null}},"ControlTime":"2500-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := new(mapState)
		for _, body := range [][]byte{first, second, second} {
			u, err := decodeUpdate(bytes.NewReader(body), s.current)
			if err != nil {
				continue
			}
			before := s.current
			if err := s.apply(u, applyTime); err != nil {
				if s.current != before {
					t.Error("a frame with an error has changed the netmap")
				}
				continue
			}
			checkNetmap(t, s)
		}
	})
}

func checkNetmap(t *testing.T, s *mapState) {
	t.Helper()
	m := s.current
	if m.Self == nil {
		t.Fatal("no self")
	}
	seen := make(map[any]bool)
	for i, p := range m.Peers {
		switch {
		case p == nil:
			t.Fatal("nil peer")
		case i > 0 && m.Peers[i-1].ID >= p.ID:
			t.Errorf("peers not in order: %d, %d", m.Peers[i-1].ID, p.ID)
		case p.Key.IsZero(), seen[p.Key], p.Key == m.Self.Key:
			t.Errorf("peer %d has the key %v", p.ID, p.Key)
		}
		seen[p.Key] = true
	}
	s.nextExpiry(applyTime)
}

// A stream that is silent has no decoder, and one that is not has the one of before.
func TestDecoderOfASilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		fr, used := newFrameReader(client, CompressZstd), make(chan weak.Pointer[zstd.Decoder], 3)
		go func() {
			defer server.Close()
			frame := streamOf(t, CompressZstd, `{"Domain":"example"}`)
			server.Write(frame)
			time.Sleep(spareTime / 2) // fake time
			server.Write(frame)
			first, second := <-used, <-used
			if first != second {
				t.Error("a frame soon after another had a decoder of its own")
			}
			time.Sleep(2 * spareTime) // fake time
			if runtime.GC(); second.Value() != nil {
				t.Error("a silent stream keeps its decoder")
			}
			server.Write(frame)
		}()
		for {
			r, err := fr.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			used <- weak.Make(fr.decoder)
			if body, err := io.ReadAll(r); err != nil || string(body) != `{"Domain":"example"}` {
				t.Fatalf("frame %q, %v", body, err)
			}
			if err := fr.finish(); err != nil {
				t.Fatal(err)
			}
		}
		if len(used) != 1 {
			t.Errorf("%d frames after the silence, want 1", len(used))
		}
	})
}
