package wireguard

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/seed94491740/tsnode/key"
)

func engineUDP(addr string) *Source { return &Source{Addr: netip.MustParseAddrPort(addr)} }

// TestSources: WG-22, each row, and that what must differ differs.
func TestSources(t *testing.T) {
	k := key.NodePublicFromRaw([32]byte(bytes.Repeat([]byte{7}, 32)))
	relay4, relay6 := engineUDP("192.0.2.1:41641"), engineUDP("[2001:db8::1]:41641")
	relay4.VNI, relay6.VNI = 0x123456, 0x123456
	for _, c := range []struct {
		src          *Source
		cookie, rate string
	}{
		{engineUDP("192.0.2.1:41641"), "04c0000201a2a9", "04c0000201"},
		{engineUDP("[::ffff:192.0.2.1]:41641"), "04c0000201a2a9", "04c0000201"},
		{engineUDP("[2001:db8:1:2:3:4:5:6]:1"), "0620010db80001000200030004000500060001", "0620010db800010002"},
		{relay4, "0504c0000201a2a9123456", "0500000000000000000000ffffc000020100123456"},
		{relay6, "050620010db8000000000000000000000001a2a9123456", "0520010db800000000000000000000000100123456"},
		{&Source{Region: 0x102, Key: k}, "0d0102" + "0707070707070707070707070707070707070707070707070707070707070707", "0d" + "0707070707070707070707070707070707070707070707070707070707070707"},
	} {
		engineWant(t, "cookie source", c.src.appendCookie(nil), mustHex(t, c.cookie))
		engineWant(t, "rate source", c.src.appendRate(nil), mustHex(t, c.rate))
		if n := len(c.src.appendCookie(nil)); n > maxSourceBytes {
			t.Errorf("source of %d bytes", n)
		}
	}
}

// TestCookieOfUpstream: upstream takes our cookie, and we take its.
func TestCookieOfUpstream(t *testing.T) {
	v := engineVectors(t)
	b, src := device.NoisePublicKey(v["B.public"]), engineUDP("203.0.113.9:41641")
	maker := cookieMaker{id: engineIdentity(t, v["B.private"])}

	var generator device.CookieGenerator
	generator.Init(b)
	msg := bytes.Clone(v["initiation"])
	generator.AddMacs(msg)
	ours := maker.reply(msg, 0x01020304, src, 1)
	var its device.MessageCookieReply
	if err := binary.Read(bytes.NewReader(ours.append(nil)), binary.LittleEndian, &its); err != nil {
		t.Fatal(err)
	}
	if !generator.ConsumeReply(&its) {
		t.Fatal("upstream refuses our cookie reply")
	}
	generator.AddMacs(msg)
	if !maker.check(msg, src, 2) {
		t.Error("MAC2 of upstream does not verify")
	}

	var checker device.CookieChecker
	checker.Init(b)
	reply, err := checker.CreateReply(v["initiation"], 0x01020304, src.appendCookie(nil))
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := binary.Write(&buf, binary.LittleEndian, reply); err != nil {
		t.Fatal(err)
	}
	m, err := parseCookieReply(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var jar cookieJar
	jar.note(v["initiation"])
	public := [32]byte(b)
	if !jar.put(&m, &public, 1) {
		t.Fatal("we refuse upstream's cookie reply")
	}
	mac1Key := [32]byte(v["mac1key.B"])
	msg = bytes.Clone(v["initiation"])
	addMACs(msg, &mac1Key, jar.get(1))
	if !checker.CheckMAC2(msg, src.appendCookie(nil)) {
		t.Error("upstream refuses our MAC2")
	}
}

// TestCookieBounds: WG-16, WG-20, and doc/protocol/wireguard.md section 10.1 row
// 12: a cookie is good for its source, for 120 s, and for one run.
func TestCookieBounds(t *testing.T) {
	v := engineVectors(t)
	id, public := engineIdentity(t, v["B.private"]), [32]byte(v["B.public"])
	maker := cookieMaker{id: id}
	a, other := engineUDP("203.0.113.9:41641"), engineUDP("203.0.113.9:41642")
	start := Tick(time.Minute)
	reply := maker.reply(v["initiation"], 1, a, start)

	jar := cookieJar{}
	if jar.put(&reply, &public, start) {
		t.Error("a cookie was taken that answers nothing")
	}
	jar.note(v["response"])
	if jar.put(&reply, &public, start) {
		t.Error("a cookie was taken that answers another message")
	}
	jar.note(v["initiation"])
	if jar.get(start) != nil {
		t.Error("there is a cookie before one came")
	}
	if !jar.put(&reply, &public, start) {
		t.Fatal("the cookie was not taken")
	}
	spoilt := reply
	spoilt.Cookie[3] ^= 1
	if jar.put(&spoilt, &public, start+1) || jar.at != start {
		t.Error("a spoilt cookie was taken, or replaced the good one")
	}
	msg := bytes.Clone(v["initiation"])
	addMACs(msg, &id.mac1Key, jar.get(start))
	for _, c := range []struct {
		what string
		src  *Source
		at   Tick
		want bool
	}{
		{"at once", a, start, true},
		{"after 120 s", a, start + Tick(cookieLifetime), true},
		{"from another port", other, start, false},
		{"after 120 s and 1 ns", a, start + Tick(cookieLifetime) + 1, false},
	} {
		if got := maker.check(msg, c.src, c.at); got != c.want {
			t.Errorf("cookie %s: %v", c.what, got)
		}
	}
	if jar.get(start+Tick(cookieLifetime)) == nil || jar.get(start+Tick(cookieLifetime)+1) != nil {
		t.Error("the jar keeps a cookie shorter or longer than 120 s")
	}
	maker.cookie(a, start+Tick(cookieLifetime)+1)
	if maker.check(msg, a, start+Tick(cookieLifetime)+1) {
		t.Error("a cookie outlived the secret it was made with")
	}
	restarted := cookieMaker{id: id}
	restarted.cookie(a, start)
	if restarted.check(msg, a, start) {
		t.Error("a cookie outlived a restart")
	}
	if (&cookieMaker{id: id}).check(v["initiation"], a, start) {
		t.Error("a message without cookie passed where none was given out")
	}
}

// TestLimiter: WG-22, WG-23, WG-25.
func TestLimiter(t *testing.T) {
	l, now := newLimiter(), Tick(time.Second)
	if l.release(now) != 0 || l.slots != nil {
		t.Error("a new limiter has a table")
	}
	passed := func(n int, src *Source) (ok int) {
		for range n {
			if l.allow(src, now) {
				ok++
			}
		}
		return ok
	}
	a, neighbour, far := engineUDP("[2001:db8::1]:1"), engineUDP("[2001:db8::ffff]:2"), engineUDP("[2001:db8:0:1::1]:1")
	if got := passed(20, a); got != sourceBurst {
		t.Errorf("%d of a burst passed, want %d", got, sourceBurst)
	}
	if got := passed(20, neighbour); got != 0 {
		t.Errorf("%d passed from the same /64", got)
	}
	if got := passed(20, far); got != sourceBurst {
		t.Errorf("%d passed from another /64", got)
	}
	ok := 0
	for range 100 {
		now += Tick(10 * time.Millisecond)
		ok += passed(1, a)
	}
	if ok != sourcePerSecond {
		t.Errorf("%d passed in a second, want %d", ok, sourcePerSecond)
	}
	ok = 0
	for range 1000 {
		ok += passed(1, &Source{Region: 1, Key: key.NewNode().Public()})
	}
	if ok > derpPerSecond || ok < derpPerSecond*3/4 { // sources may share a bucket
		t.Errorf("%d passed from many DERP sources, want %d", ok, derpPerSecond)
	}
	if wait := l.release(now + Tick(limiterIdle) - 1); wait != 1 || l.slots == nil {
		t.Errorf("the table is to be freed in %v", wait)
	}
	if wait := l.release(now + Tick(limiterIdle)); wait != 0 || l.slots != nil {
		t.Errorf("the table was not freed: %v", wait)
	}
}

// TestRates: a rate admits what it says, alone and shared.
func TestRates(t *testing.T) {
	r, shared := newRate(10, 3), newSharedRate(10, 3)
	for i, c := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true}, {0, true}, {0, true}, {0, false}, {99 * time.Millisecond, false}, {100 * time.Millisecond, true},
		{150 * time.Millisecond, false}, {200 * time.Millisecond, true}, {time.Second, true}, {time.Second, true}, {time.Second, true}, {time.Second, false},
	} {
		now := Tick(time.Hour + c.at)
		if got := r.allow(now); got != c.want {
			t.Errorf("%d: event at %v: %v", i, c.at, got)
		}
		if got := shared.allow(now); got != c.want {
			t.Errorf("%d: shared event at %v: %v", i, c.at, got)
		}
	}
	var free rate
	for range 100 {
		if !free.allow(5) {
			t.Error("the zero rate refuses")
		}
	}
}
