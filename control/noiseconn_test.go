package control

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
)

func readFull(r io.Reader, p []byte) (int, error) { return io.ReadFull(r, p) }

// secretPair returns the secrets of both ends of one handshake.
func secretPair(t testing.TB) (client, server Secrets) {
	t.Helper()
	h, a := handshakeOfVectors(t, vectors(t))
	s, err := h.Finish(a.Response)
	if err != nil {
		t.Fatal(err)
	}
	return s, a.Secrets
}

func connPair(t testing.TB) (client, server *Conn) {
	t.Helper()
	cs, ss := secretPair(t)
	c, s := bufferedPipe()
	t.Cleanup(func() { c.Close(); s.Close() })
	return NewConn(c, nil, cs), NewConn(s, nil, ss)
}

// A memoryConn is a net.Conn over bytes.
type memoryConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
	err error // of writes
}

func (c *memoryConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *memoryConn) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	return c.out.Write(p)
}

func TestConnCarriesBytes(t *testing.T) { // CTL-14
	client, server := connPair(t)
	if client.HandshakeHash() != server.HandshakeHash() {
		t.Error("the ends disagree about the handshake hash")
	}
	for _, size := range []int{0, 1, maxPlaintext - 1, maxPlaintext, maxPlaintext + 1, 5*maxPlaintext + 7, 1 << 20} {
		want := make([]byte, size)
		rand.Read(want)
		for _, way := range [][2]*Conn{{client, server}, {server, client}} {
			go way[0].Write(want)
			got := make([]byte, size)
			if _, err := io.ReadFull(way[1], got); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes came out different", size)
			}
		}
	}
}

func TestRecordsAreSmallEnough(t *testing.T) { // CTL-14
	cs, _ := secretPair(t)
	mem := new(memoryConn)
	c := NewConn(mem, nil, cs)
	if n, err := c.Write(make([]byte, 3*maxPlaintext+1)); err != nil || n != 3*maxPlaintext+1 {
		t.Fatalf("Write = %d, %v", n, err)
	}
	var sizes []int
	for b := mem.out.Bytes(); len(b) > 0; {
		n := frameHeader + int(binary.BigEndian.Uint16(b[1:]))
		sizes = append(sizes, n)
		b = b[n:]
	}
	if len(sizes) != 4 || sizes[0] != maxRecord || sizes[3] != frameHeader+1+tagSize {
		t.Errorf("records of %d bytes", sizes)
	}
}

func TestEmptyRecordsAreSkipped(t *testing.T) {
	cs, ss := secretPair(t)
	tx := halfConn{aead: newAEAD(ss.send)}
	var stream []byte
	for _, text := range []string{"", "", "a", "", "b"} {
		stream, _ = tx.seal(stream, []byte(text))
	}
	c := NewConn(&memoryConn{in: bytes.NewReader(stream)}, nil, cs)
	got, err := io.ReadAll(c)
	if string(got) != "ab" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestBadRecordsEndTheConn(t *testing.T) { // CTL-14
	cs, ss := secretPair(t)
	good, err := (&halfConn{aead: newAEAD(ss.send)}).seal(nil, []byte("good"))
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(good)
	changed[len(changed)-1] ^= 1
	for name, stream := range map[string]string{
		"other type":  "\x02" + string(good[1:]),
		"short":       "\x04\x00\x0f" + strings.Repeat("x", 15),
		"oversize":    "\x04\x0f\xfe" + strings.Repeat("x", 4094),
		"changed":     string(changed),
		"again":       string(good) + string(good),
		"cut":         string(good[:len(good)-1]),
		"cut header":  "\x04\x00",
		"then a good": string(changed) + string(good),
	} {
		c := NewConn(&memoryConn{in: strings.NewReader(stream)}, nil, cs)
		_, err := io.ReadAll(c)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if _, again := c.Read(make([]byte, 1)); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: then %v, want %v for ever", name, again, err)
		}
	}
}

func TestFailedWriteEndsTheConn(t *testing.T) { // CTL-14
	cs, _ := secretPair(t)
	mem := &memoryConn{err: errors.New("broken")}
	c := NewConn(mem, nil, cs)
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("no error")
	}
	mem.err = nil
	if _, err := c.Write([]byte("x")); err == nil || mem.out.Len() > 0 {
		t.Errorf("after a failed write, another one sent %d bytes, %v", mem.out.Len(), err)
	}
}

func TestNonceIsNeverReused(t *testing.T) {
	cs, _ := secretPair(t)
	h := halfConn{aead: newAEAD(cs.send), counter: math.MaxUint64 - 1}
	if _, err := h.seal(nil, nil); err != nil {
		t.Errorf("last nonce: %v", err)
	}
	if _, err := h.seal(nil, nil); !errors.Is(err, errNonceExhausted) {
		t.Errorf("nonce 2^64-1: %v", err)
	}
}

func TestBufferedBytesBelongToTheConn(t *testing.T) { // CTL-06
	cs, ss := secretPair(t)
	tx := halfConn{aead: newAEAD(ss.send)}
	first, _ := tx.seal(nil, []byte("first "))
	second, _ := tx.seal(nil, []byte("second"))
	for _, size := range []int{64, 1 << 16} { // smaller and larger than a record
		br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(first), bytes.NewReader(second)), size)
		if _, err := br.Peek(1); err != nil {
			t.Fatal(err)
		}
		c := NewConn(&memoryConn{in: br}, br, cs)
		if got, err := io.ReadAll(c); string(got) != "first second" || err != nil {
			t.Errorf("buffer of %d: %q, %v", size, got, err)
		}
	}
}

func TestEarlyPayload(t *testing.T) { // CTL-16
	var early bytes.Buffer
	if err := WriteEarlyPayload(&early, EarlyPayload{NodeKeyChallenge: key.NewChallenge().Public()}); err != nil {
		t.Fatal(err)
	}
	frame := "\x00\x00\x00\x04\x00\x00\x00\x00\x00rest"
	for name, test := range map[string]struct{ in, out, err string }{
		"present":      {early.String() + frame, frame, ""},
		"absent":       {frame, frame, ""},
		"unknown JSON": {earlyMagic + "\x00\x00\x00\x0e" + `{"other":true}` + frame, frame, ""},
		"no JSON":      {earlyMagic + "\x00\x00\x00\x01x", "", "early payload"},
		"too long":     {earlyMagic + "\x00\x01\x00\x01", "", "limit 65536"},
		"cut":          {early.String()[:early.Len()-1], "", "unexpected EOF"},
		"cut header":   {earlyMagic, "", "first bytes"},
		"nothing":      {"", "", "EOF"},
	} {
		c := &earlyConn{Conn: host.Conn{Inner: &memoryConn{in: strings.NewReader(test.in)}}}
		got, err := io.ReadAll(c)
		if test.err == "" && (err != nil || string(got) != test.out) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %v, want %q in it", name, err, test.err)
		}
	}
}

func FuzzRecords(f *testing.F) {
	cs, ss := secretPair(f)
	tx := halfConn{aead: newAEAD(ss.send)}
	stream, _ := tx.seal(nil, []byte("hello"))
	stream, _ = tx.seal(stream, nil)
	stream, _ = tx.seal(stream, bytes.Repeat([]byte("x"), maxPlaintext))
	want := "hello" + strings.Repeat("x", maxPlaintext)
	f.Add(stream)
	f.Add(stream[:30])
	f.Add([]byte("\x04\x0f\xfe"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := io.ReadAll(NewConn(&memoryConn{in: bytes.NewReader(b)}, nil, cs))
		if !strings.HasPrefix(want, string(got)) {
			t.Errorf("forged plaintext %q", got)
		}
	})
}

func FuzzEarlyPayload(f *testing.F) {
	f.Add([]byte(earlyMagic + "\x00\x00\x00\x02{}rest"))
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00rest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(&earlyConn{Conn: host.Conn{Inner: &memoryConn{in: bytes.NewReader(b)}}})
		if err == nil && !bytes.HasSuffix(b, got) {
			t.Errorf("read %q of %q", got, b)
		}
	})
}

func FuzzConnRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), 3)
	f.Add(bytes.Repeat([]byte("x"), 3*maxPlaintext), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cs, ss := secretPair(t)
		out := new(memoryConn)
		w := NewConn(out, nil, cs)
		cut = min(max(cut, 0), len(b))
		for _, part := range [][]byte{b[:cut], b[cut:]} {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.ReadAll(NewConn(&memoryConn{in: &out.out}, nil, ss))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("read %q, %v, want %q", got, err, b)
		}
	})
}
