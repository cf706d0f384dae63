package wireguard

import (
	"bytes"
	"testing"
)

// engineParse parses b as what its type says and returns the message encoded
// again.
func engineParse(b []byte) ([]byte, error) {
	t, err := messageType(b)
	if err != nil {
		return nil, err
	}
	switch t {
	case typeInitiation:
		m, err := parseInitiation(b)
		return m.append(nil), err
	case typeResponse:
		m, err := parseResponse(b)
		return m.append(nil), err
	case typeCookieReply:
		m, err := parseCookieReply(b)
		return m.append(nil), err
	}
	return b, nil
}

func engineMessages(t testing.TB) [][]byte {
	v := engineVectors(t)
	keepalive := append([]byte{4, 0, 0, 0}, make([]byte, keepaliveSize-4)...)
	return [][]byte{v["initiation"], v["response"], v["cookiereply"], keepalive}
}

// TestMessages: WG-03. Each message is read back as it was written; every
// truncation, extension and set reserved bit is refused.
func TestMessages(t *testing.T) {
	for _, msg := range engineMessages(t) {
		got, err := engineParse(msg)
		if err != nil || !bytes.Equal(got, msg) {
			t.Errorf("type %d: parsed to %x, %v", msg[0], got, err)
		}
		for n := range msg {
			if _, err := engineParse(msg[:n]); err == nil {
				t.Errorf("type %d: %d bytes of %d were accepted", msg[0], n, len(msg))
			}
		}
		if _, err := engineParse(append(bytes.Clone(msg), 0)); (err == nil) != (msg[0] == 4) {
			t.Errorf("type %d with one byte more: %v", msg[0], err)
		}
		for bit := 8; bit < 32; bit++ {
			bad := bytes.Clone(msg)
			bad[bit/8] |= 1 << (bit % 8)
			if _, err := engineParse(bad); err == nil {
				t.Errorf("type %d: reserved bit %d was ignored", msg[0], bit)
			}
		}
	}
}

// TestMessageOfOtherType: a parser refuses what is valid for another.
func TestMessageOfOtherType(t *testing.T) {
	parsers := []func([]byte) error{
		func(b []byte) error { _, err := parseInitiation(b); return err },
		func(b []byte) error { _, err := parseResponse(b); return err },
		func(b []byte) error { _, err := parseCookieReply(b); return err },
	}
	for i, parse := range parsers {
		for j, msg := range engineMessages(t) {
			if err := parse(msg); (err == nil) != (i == j) {
				t.Errorf("parser of type %d on type %d: %v", i+1, j+1, err)
			}
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, msg := range engineMessages(f) {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := engineParse(b)
		if err == nil && !bytes.Equal(got, b) {
			t.Errorf("%x was encoded again as %x", b, got)
		}
	})
}
