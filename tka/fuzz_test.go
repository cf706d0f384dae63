package tka

import (
	"bytes"
	"testing"

	"github.com/seed94491740/tsnode/key"
)

// Whatever is read as an update is written in the same way (SVC-147).
func FuzzUpdate(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Genesis)
		for _, u := range v.Updates {
			f.Add(u.Update)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUpdate(b)
		if err == nil && !bytes.Equal(u.encode(u.signatures), b) {
			t.Errorf("%x is written as %x", b, u.encode(u.signatures))
		}
	})
}

// Nothing that an authority is told makes it trust a key without a signature of
// one that it trusts.
func FuzzInform(f *testing.F) {
	vs := vectors(f)
	for _, u := range vs[0].Updates {
		f.Add(u.Update)
	}
	a := vs[0].authority(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		known := len(a.updates)
		next, err := a.Inform([][]byte{b})
		if len(a.updates) != known {
			t.Fatal("an authority has changed")
		}
		if err != nil {
			return
		}
		for i := range next.state.keys {
			id := next.state.keys[i].public
			if a.state.find(id) < 0 && len(next.updates) == known {
				t.Errorf("trusts %x, of nobody's word", id)
			}
		}
	})
}

// Whatever is read as a signature is written in the same way, and is valid only
// for the one node key that it names (SVC-148).
func FuzzNodeSignature(f *testing.F) {
	v := vectors(f)[0]
	for _, s := range v.Signatures {
		f.Add(s.Signature)
	}
	a, other := v.authority(f), key.NewNode().Public()
	f.Fuzz(func(t *testing.T, b []byte) {
		if a.Verify(other, b) == nil {
			t.Errorf("%x is valid for a new key", b)
		}
		s, err := parseNodeSignature(b)
		if err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("%x is written as %x", b, s.encode())
		}
	})
}

// What is sent of an auth key never has the part of tailnet lock (CTL-29).
func FuzzSplitAuthKey(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.AuthKey)
	}
	f.Add("plain")
	f.Fuzz(func(t *testing.T, text string) {
		authKey, c, err := SplitAuthKey(text)
		if bytes.Contains([]byte(authKey), []byte(credentialMark)) || c != nil && err != nil {
			t.Errorf("%q, %v, %v", authKey, c, err)
		}
	})
}
