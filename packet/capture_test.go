package packet

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// The blocks of a capture, by the figures of the draft.
func TestCapture(t *testing.T) {
	at := time.Unix(0, 0x0102030405060708)
	var c Capture
	c.Begin("ts0")
	c.Add(at, Sent, []byte{0x45, 1, 2}, []byte{3, 4}, nil)
	c.End(at, 7)
	want := unhex(t, `
		0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000
		01000000 28000000 6500 0000 00000400 0200 0300 74733000 0900 0100 09000000 0000 0000 28000000
		06000000 34000000 00000000 04030201 08070605 05000000 05000000 4501020304 000000
			0200 0400 02000000 0000 0000 34000000
		05000000 28000000 00000000 04030201 08070605 0500 0800 0700000000000000 0000 0000 28000000`)
	if !bytes.Equal(c, want) {
		t.Errorf("got\n%s", hex.Dump(c))
	}
}

func TestCapturedSizeIsEnough(t *testing.T) {
	for n := range 64 {
		var c Capture
		if c.Add(time.Now(), Received, make([]byte, n)); len(c) > CapturedSize(n) {
			t.Errorf("%d bytes: %d, more than %d", n, len(c), CapturedSize(n))
		}
	}
}

// A packet costs no memory where there is room for it.
func TestCaptureDoesNotAllocate(t *testing.T) {
	room, head, body, at := make(Capture, 0, 1<<10), make([]byte, 41), make([]byte, 100), time.Now()
	if n := testing.AllocsPerRun(100, func() { c := room; c.Add(at, Received, head, body) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func unhex(t *testing.T, text string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
