package wireguard

import (
	"crypto/rand"
	"crypto/subtle"
	"hash"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// Labels of keys derived from a static key (paper section 5.4.4, 5.4.7).
const (
	labelMAC1   = "mac1----"
	labelCookie = "cookie--"
)

// labelled returns HASH(label || public).
func labelled(label string, public *[32]byte) digest {
	b := append(make([]byte, 0, len(label)+32), label...)
	return blake2s.Sum256(append(b, public[:]...))
}

// A macer computes MACs under one key. It is reset and reused, so it belongs to
// one goroutine (WG-17).
type macer struct {
	h   hash.Hash
	sum [macSize]byte // result; here because a local would escape
}

func newMacer(key []byte) *macer {
	h, err := blake2s.New128(key)
	if err != nil {
		panic("wireguard: " + err.Error()) // keys are 16 or 32 bytes
	}
	return &macer{h: h}
}

// mac returns MAC(key, data), valid until the next call.
func (m *macer) mac(data []byte) []byte {
	m.h.Reset()
	m.h.Write(data)
	return m.h.Sum(m.sum[:0])
}

// check reports in constant time whether got is MAC(key, data) (WG-14).
func (m *macer) check(data, got []byte) bool {
	return subtle.ConstantTimeCompare(m.mac(data), got) == 1
}

// macOffsets returns where MAC1 and MAC2 of an initiation or response begin:
// they are its last 32 bytes.
func macOffsets(msg []byte) (mac1, mac2 int) { return len(msg) - 2*macSize, len(msg) - macSize }

// addMACs writes MAC1, and MAC2 if we hold a cookie of the recipient, into a
// message made without them (WG-16).
func addMACs(msg []byte, mac1Key *digest, cookie *[cookieSize]byte) {
	at1, at2 := macOffsets(msg)
	copy(msg[at1:], newMacer(mac1Key[:]).mac(msg[:at1]))
	if cookie != nil {
		copy(msg[at2:], newMacer(cookie[:]).mac(msg[:at2]))
	}
}

// A cookieJar keeps the cookie of one peer, and what is needed to open the next
// (WG-21). It belongs to the actor.
type cookieJar struct {
	cookie [cookieSize]byte
	at     Tick // when it came; 0 = we hold none
	mac1   [macSize]byte
	sent   bool // mac1 is that of the last initiation or response sent
	opens  rate
}

// get returns the cookie while it is not older than its lifetime, else nil.
func (j *cookieJar) get(now Tick) *[cookieSize]byte {
	if j.at == 0 || now-j.at > Tick(cookieLifetime) {
		return nil
	}
	return &j.cookie
}

// note remembers the MAC1 of a message that was sent.
func (j *cookieJar) note(msg []byte) {
	at1, at2 := macOffsets(msg)
	copy(j.mac1[:], msg[at1:at2])
	j.sent = true
}

// put opens a cookie reply of the peer with the given public key and keeps the
// cookie. It reports whether the reply was valid.
func (j *cookieJar) put(m *cookieReply, peer *[32]byte, now Tick) bool {
	if !j.sent {
		return false
	}
	k := labelled(labelCookie, peer)
	x, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		return false
	}
	var cookie [cookieSize]byte
	if _, err := x.Open(cookie[:0], m.Nonce[:], m.Cookie[:], j.mac1[:]); err != nil {
		return false
	}
	j.cookie, j.at = cookie, now
	return true
}

// A cookieMaker makes cookies for those who are not believed yet, and checks
// them. It belongs to the worker.
type cookieMaker struct {
	id     *identity
	secret macer // keyed by Rm
	made   Tick  // when Rm was drawn; 0 = never
}

// cookie returns the cookie of a source: MAC(Rm, source). Rm is renewed when it
// is older than a cookie may be, and never derived from the static key (WG-20).
func (c *cookieMaker) cookie(src *Source, now Tick) (cookie [cookieSize]byte) {
	if c.made == 0 || now-c.made > Tick(cookieLifetime) {
		var rm [32]byte
		rand.Read(rm[:])
		c.use(&rm, now)
	}
	var b [maxSourceBytes]byte
	copy(cookie[:], c.secret.mac(src.appendCookie(b[:0])))
	return cookie
}

// use sets Rm.
func (c *cookieMaker) use(rm *[32]byte, now Tick) {
	c.secret = *newMacer(rm[:])
	c.made = now
	clear(rm[:])
}

// check reports whether MAC2 of a message proves that its sender receives at
// src.
func (c *cookieMaker) check(msg []byte, src *Source, now Tick) bool {
	if c.made == 0 || now-c.made > Tick(cookieLifetime) {
		return false // no cookie that was given out is valid any more
	}
	_, at2 := macOffsets(msg)
	cookie := c.cookie(src, now)
	return newMacer(cookie[:]).check(msg[:at2], msg[at2:])
}

// reply makes the cookie reply to a message of src whose sender index is given.
func (c *cookieMaker) reply(msg []byte, sender uint32, src *Source, now Tick) (m cookieReply) {
	m.Receiver = sender
	rand.Read(m.Nonce[:])
	cookie := c.cookie(src, now)
	c.seal(&m, &cookie, msg)
	return m
}

// seal seals a cookie into m with the offending message's MAC1 as additional
// data.
func (c *cookieMaker) seal(m *cookieReply, cookie *[cookieSize]byte, msg []byte) {
	x, err := chacha20poly1305.NewX(c.id.cookie[:])
	if err != nil {
		panic("wireguard: " + err.Error()) // the length is right, and New has asked about FIPS mode
	}
	at1, at2 := macOffsets(msg)
	x.Seal(m.Cookie[:0], m.Nonce[:], cookie[:], msg[at1:at2])
}
