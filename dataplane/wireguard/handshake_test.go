package wireguard

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// TestKDF compares key derivation with upstream's for inputs of every length
// that occurs.
func TestKDF(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range maxHashed + 1 {
		var c digest
		input := make([]byte, n)
		for i := range c {
			c[i] = byte(random.Uint32())
		}
		for i := range input {
			input[i] = byte(random.Uint32())
		}
		var got1, got2, got3, want1, want2, want3 digest
		kdf(&c, input, &got1, &got2, &got3)
		device.KDF3(&want1, &want2, &want3, c[:], input)
		if got1 != want1 || got2 != want2 || got3 != want3 {
			t.Fatalf("KDF3 of %d bytes = %x %x %x, upstream %x %x %x", n, got1, got2, got3, want1, want2, want3)
		}
		in := c
		kdf(&c, input, &c) // in place
		device.KDF1(&want1, in[:], input)
		if c != want1 {
			t.Fatalf("KDF1 of %d bytes in place = %x, upstream %x", n, c, want1)
		}
	}
}

// TestConstantsOfUpstream: the figures of section 1.1 are those peers use.
func TestConstantsOfUpstream(t *testing.T) {
	for _, c := range []struct {
		name      string
		ours, its any
	}{
		{"RekeyAfterMessages", rekeyAfterMessages, uint64(device.RekeyAfterMessages)},
		{"RejectAfterMessages", rejectAfterMessages, uint64(device.RejectAfterMessages)},
		{"RekeyAfterTime", rekeyAfterTime, device.RekeyAfterTime},
		{"RekeyAttemptTime", rekeyAttemptTime, device.RekeyAttemptTime},
		{"RekeyTimeout", rekeyTimeout, device.RekeyTimeout},
		{"KeepaliveTimeout", keepaliveTimeout, device.KeepaliveTimeout},
		{"RejectAfterTime", rejectAfterTime, device.RejectAfterTime},
		{"CookieLifetime", cookieLifetime, device.CookieRefreshTime},
		{"HandshakeInitationRate", time.Duration(minInitiationGap), device.HandshakeInitationRate},
		{"UnderLoadAfterTime", underLoadAfter, device.UnderLoadAfterTime},
		{"PaddingMultiple", paddingMultiple, device.PaddingMultiple},
		{"initiation", initiationSize, device.MessageInitiationSize},
		{"response", responseSize, device.MessageResponseSize},
		{"cookie reply", cookieReplySize, device.MessageCookieReplySize},
		{"transport header", transportHeader, device.MessageTransportHeaderSize},
		{"keepalive", keepaliveSize, device.MessageKeepaliveSize},
	} {
		if c.ours != c.its {
			t.Errorf("%s is %v, upstream's %v", c.name, c.ours, c.its)
		}
	}
}

// lowOrder are the public keys with which every private key agrees on zero (RFC
// 7748 section 6.1; Bernstein's "Curve25519" page lists them).
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	// The top bit is ignored.
	"0100000000000000000000000000000000000000000000000000000000000080",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
}

// TestLowOrder: WG-05. A DH result of zero is rejected wherever one is formed.
func TestLowOrder(t *testing.T) {
	v := engineVectors(t)
	id := engineIdentity(t, v["B.private"])
	for _, text := range lowOrder {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		point := [32]byte(raw)
		if _, err := id.shared(&point); !errors.Is(err, errLowOrder) {
			t.Errorf("static %s: %v", text, err)
		}
		good := id.public
		stamp := stampAt(time.Unix(1, 0))
		if _, err := id.initiate(new(initiation), &point, &good, newEphemeral(), &stamp); !errors.Is(err, errLowOrder) {
			t.Errorf("initiation to %s: %v", text, err)
		}
		if _, _, err := id.identify(&initiation{Ephemeral: point}); !errors.Is(err, errLowOrder) {
			t.Errorf("initiation with ephemeral %s: %v", text, err)
		}
		var s symmetric
		if _, err := s.respond(new(response), &point, &good, newEphemeral()); !errors.Is(err, errLowOrder) {
			t.Errorf("response to ephemeral %s: %v", text, err)
		}
		if _, err := s.respond(new(response), &good, &point, newEphemeral()); !errors.Is(err, errLowOrder) {
			t.Errorf("response to static %s: %v", text, err)
		}
		if _, err := id.finish(&s, &response{Ephemeral: point}, newEphemeral()); !errors.Is(err, errLowOrder) {
			t.Errorf("response with ephemeral %s: %v", text, err)
		}
	}
}

// TestEveryBitMatters: WG-06. A handshake message with any one bit changed does
// not authenticate, apart from the MACs, which are checked elsewhere, and the
// sender's index, which only MAC1 covers.
func TestEveryBitMatters(t *testing.T) {
	v := engineVectors(t)
	a, b := engineIdentity(t, v["A.private"]), engineIdentity(t, v["B.private"])
	shared := [32]byte(v["shared"])
	for at := 8; at < initiationSize-2*macSize; at++ {
		bad := bytes.Clone(v["initiation"])
		bad[at] ^= 1 << (at % 7)
		m, err := parseInitiation(bad)
		if err != nil {
			t.Fatal(err)
		}
		_, s, err := b.identify(&m)
		if err == nil {
			_, err = s.authenticate(&m, &shared)
		}
		if err == nil {
			t.Errorf("initiation with byte %d changed was accepted", at)
		}
		if s != (symmetric{}) && !errors.Is(err, errLowOrder) {
			t.Errorf("byte %d: state of a failed handshake was kept", at)
		}
	}
	stamp, eph := stampAt(time.Unix(1700000000, 123456789)), engineECDH(t, v["Ei.private"])
	state, err := a.initiate(new(initiation), &b.public, &shared, eph, &stamp)
	if err != nil {
		t.Fatal(err)
	}
	before := state
	for at := 12; at < responseSize-2*macSize; at++ {
		bad := bytes.Clone(v["response"])
		bad[at] ^= 1 << (at % 7)
		m, err := parseResponse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.finish(&state, &m, eph); err == nil {
			t.Errorf("response with byte %d changed was accepted", at)
		}
	}
	if state != before {
		t.Error("failing responses changed the state")
	}
}

// TestMACs: MAC1 and MAC2 are upstream's, in both directions (paper section
// 5.4.4).
func TestMACs(t *testing.T) {
	v := engineVectors(t)
	b := device.NoisePublicKey(v["B.public"])
	var generator device.CookieGenerator
	generator.Init(b)
	var checker device.CookieChecker
	checker.Init(b)
	mac1Key := [32]byte(v["mac1key.B"])
	for n := 2 * macSize; n < 200; n++ {
		ours, its := bytes.Repeat([]byte{byte(n)}, n), bytes.Repeat([]byte{byte(n)}, n)
		clear(ours[n-macSize:])
		clear(its[n-macSize:])
		addMACs(ours, &mac1Key, nil)
		generator.AddMacs(its)
		engineWant(t, "MAC1", ours, its)
		if !checker.CheckMAC1(ours) {
			t.Errorf("upstream refuses MAC1 of %d bytes", n)
		}
	}
}

// TestMACAllocates nothing (WG-17).
func TestMACAllocates(t *testing.T) {
	v := engineVectors(t)
	m, msg := newMacer(v["mac1key.B"]), v["initiation"]
	at1, at2 := macOffsets(msg)
	if n := testing.AllocsPerRun(100, func() {
		if !m.check(msg[:at1], msg[at1:at2]) {
			t.Error("MAC1 does not verify")
		}
	}); n != 0 {
		t.Errorf("checking MAC1 allocates %v times", n)
	}
}

// TestNew: what is missing is named.
func TestNew(t *testing.T) {
	good := Config{
		Private: key.NewNode(), MTU: 1280, Events: new(laneEvents),
		Send: func(*Peer, *Source, packet.Burst) {}, Reply: func(*Source, []byte) {},
	}
	if e, err := New(good); err != nil || e.String() != "wireguard.Engine" {
		t.Errorf("New = %v, %v", e, err)
	}
	for name, spoil := range map[string]func(*Config){
		"key":    func(c *Config) { c.Private = key.NodePrivate{} },
		"MTU":    func(c *Config) { c.MTU = 0 },
		"Events": func(c *Config) { c.Events = nil },
		"Send":   func(c *Config) { c.Send = nil },
		"Reply":  func(c *Config) { c.Reply = nil },
	} {
		bad := good
		spoil(&bad)
		if _, err := New(bad); err == nil || !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("New without %s: %v", name, err)
		}
	}
}

// TestFIPS: WG-87, in a process of its own because the mode is chosen at start.
func TestFIPS(t *testing.T) {
	if os.Getenv("GODEBUG") == "fips140=only" {
		_, err := New(Config{})
		if !errors.Is(err, ErrFIPS) {
			t.Errorf("New = %v, want ErrFIPS", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFIPS$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFIPS")) {
		t.Errorf("in FIPS mode: %v\n%s", err, out)
	}
}
