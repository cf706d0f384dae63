package control

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/seed94491740/tsnode/netmap"
)

// bigFrame returns a compressed frame with n peers that differ in what peers
// differ in, and the length of its JSON. The peer is that of testdata/peer.json.
func bigFrame(t testing.TB, n int) (frame []byte, size int) {
	t.Helper()
	template, err := os.ReadFile("testdata/peer.json")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	enc, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	w := &counter{w: enc}
	io.WriteString(w, `{"Node":{"ID":1,"Name":"self.lab.ts.","Key":"nodekey:`+fmt.Sprintf("%064x", 1)+`","Addresses":["100.64.0.1/32"]},"Peers":[`)
	for i := range n {
		if i > 0 {
			io.WriteString(w, ",")
		}
		w.Write(numbered(template, i+2))
	}
	io.WriteString(w, `],"Domain":"lab"}`)
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), w.n
}

// numbered makes the template that of another peer: its own identity, name,
// keys and addresses.
func numbered(template []byte, i int) []byte {
	hex := fmt.Sprintf("%08x", i)
	return []byte(strings.NewReplacer(
		"1004999", strconv.Itoa(i),
		"nFAKE00004999CNTRL", "nFAKE"+hex+"CNTRL",
		"machine-04999", "machine-"+hex,
		"8d52bc79", hex, "49858ba3", hex, "c8b0c096", hex, // node, machine, disco key
		"100.100.19.135", fmt.Sprintf("100.%d.%d.%d", 64+i>>16, i>>8&255, i&255),
		"1387/128", fmt.Sprintf("%x:%x/128", i>>16, i&0xffff),
		"10.20.19.135", fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
	).Replace(string(template)))
}

type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return c.w.Write(p)
}

// A heapPeak follows the heap while something is read through it.
type heapPeak struct {
	r    io.Reader
	next int
	read int
	peak uint64
}

func (h *heapPeak) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.read += n; h.read >= h.next {
		h.next = h.read + 1<<20
		h.peak = max(h.peak, heapInUse())
	}
	return n, err
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func heapAfterGC() uint64 {
	runtime.GC()
	runtime.GC()
	return heapInUse()
}

func TestMemoryOfManyPeers(t *testing.T) {
	frame, size := bigFrame(t, manyPeers)
	base := heapAfterGC()
	dec, err := zstd.NewReader(bytes.NewReader(frame), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		t.Fatal(err)
	}
	r := &heapPeak{r: dec}
	begin := time.Now()
	var s mapState
	u, err := decodeUpdate(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.apply(u, begin); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	peak := max(r.peak, heapInUse()) - base
	u = nil
	dec.Close()
	kept := heapAfterGC() - base
	nm := s.current
	if len(nm.Peers) != manyPeers {
		t.Fatalf("%d peers", len(nm.Peers))
	}
	perPeer := kept/manyPeers - netmapStrings(nm)/manyPeers
	t.Logf("%d peers: JSON %d MB, compressed %d MB, %v; peak %d MB, kept %d MB, %d bytes a peer beside strings",
		manyPeers, size>>20, len(frame)>>20, took.Round(time.Millisecond), peak>>20, kept>>20, perPeer)
	if perPeer > 1000 {
		t.Errorf("%d bytes kept for each peer, want at most 1000", perPeer)
	}
	const fixed = 16 << 20 // of decoder and JSON buffer, whatever the frame
	if peak > 2*uint64(size)+fixed {
		t.Errorf("peak of %d MB for a frame of %d MB, want at most twice", peak>>20, size>>20)
	}

	// The same list again, as after a reconnect, costs next to nothing.
	before := heapAfterGC()
	dec, err = zstd.NewReader(bytes.NewReader(frame), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	if u, err = decodeUpdate(dec, nm); err != nil {
		t.Fatal(err)
	}
	again := mapState{before: nm}
	if err := again.apply(u, begin); err != nil {
		t.Fatal(err)
	}
	for i, p := range again.current.Peers {
		if p != nm.Peers[i] {
			t.Fatalf("peer %d is unchanged but has a new pointer", i)
		}
	}
	if more := int64(heapAfterGC()) - int64(before); more > 16<<20 {
		t.Errorf("an unchanged list costs %d MB more", more>>20)
	}
	runtime.KeepAlive(nm)
}

// netmapStrings is the length of the strings that only one peer has.
func netmapStrings(nm *netmap.Netmap) (n uint64) {
	for _, p := range nm.Peers {
		n += uint64(len(p.Name) + len(p.StableID))
	}
	return n
}

func BenchmarkDeltaAmongManyPeers(b *testing.B) {
	frame, _ := bigFrame(b, manyPeers)
	dec, err := zstd.NewReader(bytes.NewReader(frame), zstd.WithDecoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	defer dec.Close()
	u, err := decodeUpdate(dec, nil)
	if err != nil {
		b.Fatal(err)
	}
	var s mapState
	if err := s.apply(u, time.Now()); err != nil {
		b.Fatal(err)
	}
	online := true
	for b.Loop() {
		online = !online
		u := &update{MapResponse: MapResponse{OnlineChange: map[netmap.NodeID]bool{5000: online}}}
		if err := s.apply(u, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
