package dns

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// What cannot be understood is answered with FORMERR, or with nothing where an
// answer could go back and forth for ever.
func TestMalformedQuestions(t *testing.T) {
	r := New(Config{Netmap: newCell(newNetmap()), Preferences: newCell(accept)})
	defer r.Close()
	good := message(t, "both.tail.ts.net", a)
	response := bytes.Clone(good)
	response[2] |= bitResponse
	none := bytes.Clone(good[:headerBytes])
	none[5] = 0
	for _, tt := range []struct {
		name, want string
		msg        []byte
	}{
		{"a response", "", response},
		{"empty", "", nil},
		{"short", "", good[:headerBytes-1]},
		{"no question", "FormatError", none},
		{"half a question", "FormatError", good[:len(good)-1]},
	} {
		msg, err := r.Query(t.Context(), "udp", tt.msg)
		switch {
		case tt.want == "":
			if err == nil {
				t.Errorf("%s is answered with %s", tt.name, text(t, msg))
			}
		case err != nil || text(t, msg) != tt.want || binary.BigEndian.Uint16(msg) != 77:
			t.Errorf("%s: %s, %v", tt.name, text(t, msg), err)
		}
	}
	for i := range good {
		if msg, err := r.Query(t.Context(), "udp", good[:i]); err == nil && rcode(msg) != dnsmessage.RCodeFormatError {
			t.Errorf("%d of %d bytes: %s", i, len(good), text(t, msg))
		}
	}
	if s := r.Stats(); s.Malformed != uint64(len(good)+5) {
		t.Errorf("%+v, want %d malformed", s, len(good)+5)
	}
}

// An answer repeats the question as it was asked, and says who speaks.
func TestAnswerHeaders(t *testing.T) {
	table := Compile(newNetmap(), accept, nil)
	for _, tt := range []struct {
		name                     string
		authoritative, recursion bool
	}{
		{"BOTH.tail.ts.net", true, true}, {"nobody.tail.ts.net", true, true}, {"b._dns-sd._udp.example", false, true},
	} {
		q, err := parseQuery(message(t, tt.name, a), true)
		if err != nil {
			t.Fatal(err)
		}
		d := table.Decide(q.name, a)
		var m dnsmessage.Message
		if err := m.Unpack(q.answer(&d, 1)); err != nil {
			t.Fatal(err)
		}
		if m.ID != 77 || !m.Response || m.Authoritative != tt.authoritative || m.RecursionAvailable != tt.recursion || len(m.Questions) != 1 || m.Questions[0] != q.question {
			t.Errorf("%s: %+v", tt.name, m)
		}
	}
}

func TestFindOPT(t *testing.T) {
	plain := message(t, "x.example", a)
	if _, ok := findOPT(plain); ok {
		t.Error("found an OPT record that is not there")
	}
	msg := withOPT(t, bytes.Clone(plain), 5000)
	at, ok := findOPT(msg)
	if !ok || binary.BigEndian.Uint16(msg[at:]) != 5000 {
		t.Errorf("at %d, %v", at, ok)
	}
	clampOPT(msg)
	if got := binary.BigEndian.Uint16(msg[at:]); got != maxUDP {
		t.Errorf("clamped to %d", got)
	}
	for i := range msg {
		findOPT(msg[:i])
	}
	msg[at+3] = 1 // a version nobody knows
	if _, ok := findOPT(msg); ok {
		t.Error("found an OPT record of another version")
	}
}

// FuzzQuery: no message of a client is too much, and what is answered is a
// response to it.
func FuzzQuery(f *testing.F) {
	for _, typ := range []dnsmessage.Type{a, aaaa, ptr, txt, anyT} {
		f.Add(message(f, "both.tail.ts.net", typ))
		f.Add(withOPT(f, message(f, "b._dns-sd._udp.1.0.64.100.in-addr.arpa", typ), 4096))
		f.Add(message(f, nibbles("fd7a:115c:a1e0::3"), typ))
	}
	f.Add(message(f, "10-0-0-1-via-0x7.tail.ts.net", aaaa))
	f.Add([]byte{})
	r := New(Config{Netmap: newCell(newNetmap()), Preferences: newCell(Preferences{})}) // asks nobody
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, network := range []string{"udp", "tcp"} {
			answer, err := r.Query(t.Context(), network, bytes.Clone(msg))
			if err != nil {
				continue
			}
			if len(answer) < headerBytes || !bytes.Equal(answer[:2], msg[:2]) || answer[2]&bitResponse == 0 {
				t.Errorf("%x is answered with %x", msg, answer)
			}
		}
		r.Table().Decide(string(msg), ptr)
		r.Table().Lookup(string(msg))
	})
}

// FuzzAnswer: no message of an upstream server is too much, and one that counts
// has the ID that was sent.
func FuzzAnswer(f *testing.F) {
	q := message(f, "x.example", a)
	f.Add(replyTo(f, q, dnsmessage.RCodeSuccess, ServiceIPv4, ServiceIPv6))
	f.Add(replyTo(f, q, dnsmessage.RCodeServerFailure))
	f.Add(withOPT(f, replyTo(f, q, dnsmessage.RCodeSuccess), 4096))
	f.Add(q)
	asked, err := parseQuery(q, true)
	if err != nil {
		f.Fatal(err)
	}
	r := New(Config{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		parseAddrs(msg)
		if !answers(msg, 77, &asked.question) {
			return
		}
		if binary.BigEndian.Uint16(msg) != 77 || msg[2]&bitResponse == 0 {
			t.Errorf("%x counts as an answer", msg)
		}
		if out := r.finish(asked, bytes.Clone(msg)); len(out) > maxUDP || len(out) > maxPlain && !truncated(out) {
			t.Errorf("%d bytes go to a client that takes %d", len(out), maxPlain)
		}
	})
}

// FuzzReverse: a reverse name and the address are two forms of the same.
func FuzzReverse(f *testing.F) {
	f.Add("2.0.64.100.in-addr.arpa")
	f.Add(nibbles("fd7a:115c:a1e0::3"))
	f.Add("1-2-3-4-via-5.ts.net")
	f.Fuzz(func(t *testing.T, name string) {
		addrOfVia(name)
		canonical(name)
		at, ok := addrOfReverse(name)
		if ok && at.Is6() {
			if again, ok := addrOfReverse(nibbles(at.String())); !ok || again != at {
				t.Errorf("%q is %v, but %v the other way round", name, at, again)
			}
		}
	})
}
