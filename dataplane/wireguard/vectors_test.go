package wireguard

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/seed94491740/tsnode/key"
)

// engineVectors reads testdata/vectors.txt.
func engineVectors(t testing.TB) map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v := map[string][]byte{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, text, found := strings.Cut(lines.Text(), " ")
		if !found || name == "#" {
			continue
		}
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		v[name] = b
	}
	if len(v) < 26 {
		t.Fatalf("testdata/vectors.txt has %d vectors", len(v))
	}
	return v
}

func engineECDH(t testing.TB, b []byte) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func engineIdentity(t testing.TB, b []byte) *identity {
	t.Helper()
	id, err := newIdentity(key.NodePrivateFromRaw([32]byte(b)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func engineWant(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s = %x, want %x", what, got, want)
	}
}

// TestConstants: the values that are written down are those the paper derives
// (paper section 5.4.2).
func TestConstants(t *testing.T) {
	v := engineVectors(t)
	c := blake2s.Sum256([]byte(construction))
	h := blake2s.Sum256(append(c[:], identifier...))
	engineWant(t, "HASH(construction)", c[:], initialC[:])
	engineWant(t, "HASH(C || identifier)", h[:], initialH[:])
	engineWant(t, "C0", initialC[:], v["C0"])
	engineWant(t, "H0", initialH[:], v["H0"])
}

// TestHandshakeVectors runs the whole handshake of Appendix A in both roles.
func TestHandshakeVectors(t *testing.T) {
	v := engineVectors(t)
	a, b := engineIdentity(t, v["A.private"]), engineIdentity(t, v["B.private"])
	engineWant(t, "A.public", a.public[:], v["A.public"])
	engineWant(t, "B.public", b.public[:], v["B.public"])
	engineWant(t, "MAC1 key of B", b.mac1Key[:], v["mac1key.B"])
	engineWant(t, "cookie key of B", b.cookie[:], v["cookiekey.B"])
	engineWant(t, "H after row 1", b.first.H[:], v["H.row1"])
	shared, err := a.shared(&b.public)
	if err != nil {
		t.Fatal(err)
	}
	engineWant(t, "static-static secret", shared[:], v["shared"])
	stamp := stampAt(time.Unix(1700000000, 123456789))
	engineWant(t, "stamp", stamp[:], v["stamp"])

	m := initiation{Sender: 0x01020304}
	state, err := a.initiate(&m, &b.public, &shared, engineECDH(t, v["Ei.private"]), &stamp)
	if err != nil {
		t.Fatal(err)
	}
	msg := m.append(nil)
	addMACs(msg, &b.mac1Key, nil)
	engineWant(t, "initiation", msg, v["initiation"])
	engineWant(t, "C after row 4", state.C[:], v["C.row4"])
	engineWant(t, "H after row 4", state.H[:], v["H.row4"])

	answer := engineRespondVector(t, v, b, msg)
	engineWant(t, "response", answer, v["response"])

	before := state
	r, err := parseResponse(answer)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := a.finish(&state, &r, engineECDH(t, v["Ei.private"]))
	if err != nil {
		t.Fatal(err)
	}
	engineWant(t, "T1 as initiator", keys.send[:], v["T1"])
	engineWant(t, "T2 as initiator", keys.receive[:], v["T2"])
	if state != before {
		t.Error("finish changed the state it was given")
	}
}

// engineRespondVector is B's half of the handshake.
func engineRespondVector(t *testing.T, v map[string][]byte, b *identity, msg []byte) []byte {
	t.Helper()
	got, err := parseInitiation(msg)
	if err != nil {
		t.Fatal(err)
	}
	static, state, err := b.identify(&got)
	if err != nil {
		t.Fatal(err)
	}
	engineWant(t, "static key", static[:], v["A.public"])
	engineWant(t, "C after row 3", state.C[:], v["C.row3"])
	shared, err := b.shared(&static)
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := state.authenticate(&got, &shared)
	if err != nil {
		t.Fatal(err)
	}
	engineWant(t, "stamp", stamp[:], v["stamp"])
	engineWant(t, "H after row 4 as responder", state.H[:], v["H.row4"])
	r := response{Sender: 0x0a0b0c0d, Receiver: got.Sender}
	keys, err := state.respond(&r, &got.Ephemeral, &static, engineECDH(t, v["Er.private"]))
	if err != nil {
		t.Fatal(err)
	}
	engineWant(t, "T2 as responder", keys.send[:], v["T2"])
	engineWant(t, "T1 as responder", keys.receive[:], v["T1"])
	if state != (symmetric{}) {
		t.Error("respond left its state behind")
	}
	a := [32]byte(v["A.public"])
	mac1Key := labelled(labelMAC1, &a)
	out := r.append(nil)
	addMACs(out, &mac1Key, nil)
	return out
}

// TestCookieVectors runs the cookie of Appendix A.
func TestCookieVectors(t *testing.T) {
	v := engineVectors(t)
	src := &Source{Addr: netip.MustParseAddrPort("203.0.113.9:41641")}
	engineWant(t, "source", src.appendCookie(nil), v["source"])

	maker := cookieMaker{id: engineIdentity(t, v["B.private"])}
	rm := [32]byte(bytes.Repeat([]byte{0x55}, 32))
	maker.use(&rm, 1)
	cookie := maker.cookie(src, 1)
	engineWant(t, "cookie", cookie[:], v["cookie"])
	m := cookieReply{Receiver: 0x01020304, Nonce: [24]byte(bytes.Repeat([]byte{0x66}, 24))}
	maker.seal(&m, &cookie, v["initiation"])
	engineWant(t, "cookie reply", m.append(nil), v["cookiereply"])

	var jar cookieJar
	jar.note(v["initiation"])
	b := [32]byte(v["B.public"])
	if !jar.put(&m, &b, 1) {
		t.Fatal("the cookie reply does not open")
	}
	msg := bytes.Clone(v["initiation"])
	clear(msg[initiationSize-2*macSize:])
	mac1Key := [32]byte(v["mac1key.B"])
	addMACs(msg, &mac1Key, jar.get(1))
	engineWant(t, "initiation with cookie", msg, append(v["initiation"][:132:132], v["MAC2"]...))
	if !maker.check(msg, src, 1) {
		t.Error("MAC2 does not verify")
	}
}

// TestStamps: WG-10, WG-11.
func TestStamps(t *testing.T) {
	var c stampClock
	base := time.Unix(1700000000, 0)
	last := c.next(base)
	for _, step := range []time.Duration{0, 1, stampTick, -time.Hour, time.Second, -1, 59 * stampTick, 0, 0, 0} {
		got := c.next(base.Add(step))
		if !got.After(last) {
			t.Errorf("stamp after a step of %v is %x, not after %x", step, got, last)
		}
		if got[9] != 0 || got[10] != 0 || got[11] != 0 {
			t.Errorf("stamp %x shows more than its ticks", got)
		}
		last = got
	}
	if got := after(makeStamp(5, 59*stampTick)); got != makeStamp(6, 0) {
		t.Errorf("tick after the last of second 5 = %x", got)
	}
	now := time.Now()
	lower, upper := stampAt(now), timestamp(tai64n.Now())
	if lower.After(upper) {
		t.Errorf("stampAt gives %x, upstream later %x", lower, upper)
	}
	if later := stampAt(now.Add(time.Minute)); !later.After(upper) {
		t.Errorf("a minute later %x is not after upstream's %x", later, upper)
	}
}
