package tun

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// framings are those of the vectors, by name.
var framings = map[string]Framing{
	"plain":    {},
	"family":   {Family: true},
	"virtio":   {Virtio: virtioHeader},
	"virtio12": {Virtio: virtioHeader + 2},
}

// A vector is a line of testdata/frames.txt.
type vector struct {
	name          string
	framing       Framing
	frame, packet []byte // packet is nil for what is malformed
	segment       int
}

func vectors(t testing.TB) (list []vector) {
	t.Helper()
	// The header of virtio-net is in the byte order of the machine, and so is what was recorded.
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the vectors are of a little-endian machine")
	}
	f, err := os.Open("testdata/frames.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) != 5 || field[0] == "#" {
			continue
		}
		framing, ok := framings[field[1]]
		frame, err := hex.DecodeString(field[2])
		pkt, _ := hex.DecodeString(field[3]) // "malformed" is none
		segment, segmentErr := strconv.Atoi(field[4])
		if err := errors.Join(err, segmentErr); err != nil || !ok {
			t.Fatalf("%s: %v", field[0], err)
		}
		if field[3] == "malformed" {
			pkt = nil
		}
		list = append(list, vector{field[0], framing, frame, pkt, segment})
	}
	if len(list) < 17 {
		t.Fatalf("%d vectors, want 17 or more", len(list))
	}
	return list
}

// VPN-39, VPN-42: what surrounds a packet is taken away, and a checksum that the
// kernel has left to the reader is completed.
func TestParse(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			var got packet.Outbound
			err := v.framing.Parse(bytes.Clone(v.frame), &got)
			switch {
			case v.packet == nil:
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("error %v, want ErrMalformed", err)
				}
			case err != nil:
				t.Error(err)
			case !bytes.Equal(got.Head, v.packet) || got.Segment != v.segment || got.Partial != (v.segment > 0):
				t.Errorf("got %x, segments of %d, partial %v\nwant %x, %d", got.Head, got.Segment, got.Partial, v.packet, v.segment)
			}
		})
	}
}

// VPN-42: no part of a frame is taken for the whole.
func TestParseTruncated(t *testing.T) {
	for _, v := range vectors(t) {
		for n := range v.frame {
			var got packet.Outbound
			if err := v.framing.Parse(bytes.Clone(v.frame[:n]), &got); err == nil && v.name != "longer-than-it-says" {
				t.Errorf("%s: %d bytes of %d are a packet", v.name, n, len(v.frame))
			}
		}
	}
}

// Packets are written in the frames that they would be read in.
func TestPut(t *testing.T) {
	for _, v := range vectors(t) {
		if v.packet == nil || v.segment > 0 || strings.Contains(v.name, "checksum") || v.framing.Virtio > virtioHeader {
			continue
		}
		n := v.framing.Header()
		frame := append(bytes.Repeat([]byte{0xaa}, n), v.packet...)
		v.framing.Put(frame, packet.Merged{Len: len(v.packet), Count: 1})
		if !bytes.Equal(frame, v.frame) {
			t.Errorf("%s: got %x\nwant %x", v.name, frame, v.frame)
		}
	}
}

// WG-71: a merged packet is described to the kernel as one to cut, with the sum of
// the pseudo-header in place of its checksum.
func TestPutMerged(t *testing.T) {
	seen := 0
	for _, v := range vectors(t) {
		if v.segment == 0 || strings.Contains(v.name, "ecn") {
			continue
		}
		seen++
		headers := len(v.packet) - 8 // of payload
		frame := bytes.Clone(v.frame)
		clear(frame[:virtioHeader])
		frame[virtioHeader+headers-4] ^= 0xff // the checksum is stale
		v.framing.Put(frame, packet.Merged{Len: len(v.packet), HeaderLen: headers, Segment: v.segment, Count: 3})
		if !bytes.Equal(frame, v.frame) {
			t.Errorf("%s: got %x\nwant %x", v.name, frame, v.frame)
		}
	}
	if seen == 0 {
		t.Fatal("no vector has segments")
	}
}

func TestFramingCheck(t *testing.T) {
	for _, f := range framings {
		if err := f.check(); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
	for _, n := range []int{1, virtioHeader - 1, maxVirtio + 1} {
		if (Framing{Virtio: n}).check() == nil {
			t.Errorf("a virtio-net header of %d bytes passes", n)
		}
	}
}

// FuzzParse shows that what is taken for a packet is a whole one, inside the
// frame, and that frames are written as they are read.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.frame, v.framing.Family, v.framing.Virtio)
	}
	f.Fuzz(func(t *testing.T, frame []byte, family bool, virtio int) {
		framing := Framing{Family: family, Virtio: virtio}
		if framing.check() != nil || family && virtio != 0 {
			return
		}
		var got packet.Outbound
		if err := framing.Parse(bytes.Clone(frame), &got); err != nil {
			return
		}
		n := framing.Header()
		if !whole(got.Head) || len(got.Head) != len(frame)-n || got.Len() != len(got.Head) {
			t.Fatalf("%x is %x", frame, got.Head)
		}
		again := make([]byte, len(frame))
		copy(again[n:], got.Head)
		framing.Put(again, packet.Merged{Len: len(got.Head), Count: 1})
		var second packet.Outbound
		if err := framing.Parse(again, &second); err != nil || !bytes.Equal(second.Head, got.Head) || second.Segment != 0 {
			t.Fatalf("%x was written as %x: %v", got.Head, again, err)
		}
	})
}
