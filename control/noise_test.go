package control

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/key"
)

// vectors reads testdata/noise_vectors.txt.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/noise_vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	v := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[0] == "#" {
			continue
		}
		if v[fields[0]], err = hex.DecodeString(fields[1]); err != nil {
			t.Fatalf("%s: %v", fields[0], err)
		}
	}
	if len(v) != 13 {
		t.Fatalf("%d vectors, want 13", len(v))
	}
	return v
}

// handshakeOfVectors runs both halves with the vectors' keys.
func handshakeOfVectors(t testing.TB, v map[string][]byte) (*ClientHandshake, Accepted) {
	t.Helper()
	machine := key.MachinePrivateFromRaw([32]byte(v["machine"]))
	server := key.MachinePrivateFromRaw([32]byte(v["server"]))
	h, err := startHandshake(machine, server.Public(), 113, [32]byte(v["client-eph"]))
	if err != nil {
		t.Fatal(err)
	}
	a, err := acceptHandshake(server, h.Initiation(), [32]byte(v["server-eph"]))
	if err != nil {
		t.Fatal(err)
	}
	return h, a
}

func TestHandshakeVectors(t *testing.T) { // CTL-12
	v := vectors(t)
	h, a := handshakeOfVectors(t, v)
	equal := func(name string, got []byte) {
		t.Helper()
		if !bytes.Equal(got, v[name]) {
			t.Errorf("%s = %x, want %x", name, got, v[name])
		}
	}
	raw := a.Machine.Raw()
	equal("machine-pub", raw[:])
	equal("initiation", h.Initiation())
	equal("response", a.Response)
	s, err := h.Finish(a.Response)
	if err != nil {
		t.Fatal(err)
	}
	equal("hash", s.Hash[:])
	equal("hash", a.Secrets.Hash[:])
	equal("k1", s.send[:])
	equal("k2", s.recv[:])
	equal("k1", a.Secrets.recv[:])
	equal("k2", a.Secrets.send[:])
	if a.Version != 113 {
		t.Errorf("version = %d", a.Version)
	}
	client, server := bufferedPipe()
	defer client.Close()
	c := NewConn(client, nil, s)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	records := make([]byte, len(v["record-hello"])+len(v["record-world"]))
	if _, err := readFull(server, records); err != nil {
		t.Fatal(err)
	}
	equal("record-hello", records[:len(v["record-hello"])])
	equal("record-world", records[len(v["record-hello"]):])
}

func TestHandshakeRefusesEveryChange(t *testing.T) { // CTL-13
	v := vectors(t)
	server := key.MachinePrivateFromRaw([32]byte(v["server"]))
	for i := 2; i < InitiationSize; i++ { // the version is anything's guess: it is hashed
		bad := bytes.Clone(v["initiation"])
		bad[i] ^= 1
		if _, err := AcceptHandshake(server, bad); err == nil {
			t.Errorf("initiation with byte %d changed was accepted", i)
		}
	}
	bad := bytes.Clone(v["initiation"])
	bad[1] ^= 1
	if _, err := AcceptHandshake(server, bad); err == nil {
		t.Error("initiation with another version was accepted")
	}
	for i := range ResponseSize {
		h, a := handshakeOfVectors(t, v)
		a.Response[i] ^= 1
		if _, err := h.Finish(a.Response); err == nil {
			t.Errorf("response with byte %d changed was accepted", i)
		}
	}
	for i := range InitiationSize {
		if _, err := AcceptHandshake(server, v["initiation"][:i]); err == nil {
			t.Errorf("initiation of %d bytes was accepted", i)
		}
	}
	for i := range ResponseSize {
		h, a := handshakeOfVectors(t, v)
		if _, err := h.Finish(a.Response[:i]); err == nil {
			t.Errorf("response of %d bytes was accepted", i)
		}
	}
}

func TestHandshakeRefusesZeroAgreement(t *testing.T) { // CTL-13
	v := vectors(t)
	var zero [32]byte
	if _, err := StartHandshake(key.NewMachine(), key.MachinePublicFromRaw(zero), 113); err == nil {
		t.Error("a zero server key was accepted")
	}
	lowOrder := [32]byte{1} // a point of order 1 on the curve: every agreement with it is zero
	if _, err := StartHandshake(key.NewMachine(), key.MachinePublicFromRaw(lowOrder), 113); err == nil {
		t.Error("a server key of low order was accepted")
	}
	bad := bytes.Clone(v["initiation"])
	copy(bad[initiationHeader:], lowOrder[:])
	if _, err := AcceptHandshake(key.MachinePrivateFromRaw([32]byte(v["server"])), bad); err == nil {
		t.Error("an ephemeral key of low order was accepted")
	}
}

func TestFreshEphemerals(t *testing.T) { // CTL-15
	machine, server := key.NewMachine(), key.NewMachine()
	a, err := StartHandshake(machine, server.Public(), 130)
	if err != nil {
		t.Fatal(err)
	}
	b, err := StartHandshake(machine, server.Public(), 130)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.Initiation(), b.Initiation()) {
		t.Error("two attempts have the same initiation")
	}
	accepted, err := AcceptHandshake(server, a.Initiation())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(accepted.Response); !errors.Is(err, errNotServer) {
		t.Errorf("the response to another attempt: %v", err)
	}
}

func TestHandshakeFrames(t *testing.T) {
	v := vectors(t)
	for name, test := range map[string]struct {
		frame string
		want  string
	}{
		"error":             {"\x03\x00\x05nope!", `refused the handshake: "nope!"`},
		"error, cut":        {"\x03\x00\xffno", `refused the handshake: "no"`},
		"other type":        {"\x04\x00\x30" + strings.Repeat("x", 48), "frame of type 4"},
		"other length":      {"\x02\x00\x31" + strings.Repeat("x", 49), "and 49 bytes"},
		"closed":            {"", "may not support this client's capability version"},
		"cut in the header": {"\x02", "may not support"},
		"cut":               {"\x02\x00\x30abc", "unexpected EOF"},
	} {
		h, _ := handshakeOfVectors(t, v)
		_, err := readResponse(bufio.NewReader(strings.NewReader(test.frame)), h)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}

func FuzzAcceptHandshake(f *testing.F) {
	v := vectors(f)
	server := key.MachinePrivateFromRaw([32]byte(v["server"]))
	f.Add(v["initiation"])
	f.Add(v["response"])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := AcceptHandshake(server, b)
		if err == nil && (len(b) != InitiationSize || len(a.Response) != ResponseSize || a.Machine.IsZero()) {
			t.Errorf("accepted %x as %+v", b, a.Machine)
		}
	})
}

func FuzzReadResponse(f *testing.F) {
	v := vectors(f)
	f.Add(v["response"])
	f.Add([]byte("\x03\x00\x05nope!"))
	f.Add([]byte("\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, a := handshakeOfVectors(t, v)
		_, err := readResponse(bufio.NewReader(bytes.NewReader(b)), h)
		if err == nil && !bytes.HasPrefix(b, a.Response) {
			t.Errorf("accepted %x", b)
		}
	})
}
