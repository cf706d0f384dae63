package peerapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// SVC-88: nodes of the same user may ask, others only where the policy lets them.
func TestSVC88WhoMayAsk(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			name   string
			change func()
			want   int
		}{
			{"same user", func() {}, 200},
			{"another user", func() { w.caller.Node.User = 8 }, 403},
			{"another user of an exit node", func() { w.others = true }, 200},
			{"tagged, of an exit node", func() { w.caller.Node.Tags = []string{"tag:x"} }, 200},
			{"tagged", func() { w.others = false }, 403},
			{"two tagged ones of one user", func() { w.caller.Node.User = 7; w.self.Tags = []string{"tag:x"} }, 403},
			{"the node itself", func() { w.caller.Node = w.self }, 200},
		} {
			w.change(tt.change)
			if got := w.do("GET", "/dns-query?dns=AAAA", nil); got.status != tt.want {
				t.Errorf("%s: %+v, want %d", tt.name, got, tt.want)
			}
		}
	})
}

// Questions come by GET and POST as RFC 8484 says; anything else is an error that
// says what is wanted.
func TestDNSOverHTTP(t *testing.T) {
	question, err := newQuestion("www.example", "A")
	if err != nil {
		t.Fatal(err)
	}
	encoded := base64.RawURLEncoding.EncodeToString(question)
	message := withHeader("Content-Type", mediaType)
	inWorld(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			name, method, path string
			body               []byte
			options            []option
			want               int
		}{
			{"GET", "GET", "?dns=" + encoded, nil, nil, 200},
			{"POST", "POST", "", question, []option{message}, 200},
			{"POST with a query", "POST", "?dns=x", question, []option{message}, 200},
			{"the longest", "POST", "", make([]byte, maxMessage), []option{message}, 200},
			{"too long", "POST", "", make([]byte, maxMessage+1), []option{message}, 413},
			{"POST of a form", "POST", "", question, []option{withHeader("Content-Type", "application/x-www-form-urlencoded")}, 415},
			{"POST of nothing in particular", "POST", "", question, nil, 415},
			{"GET of nothing", "GET", "", nil, nil, 400},
			{"GET with padding", "GET", "?dns=" + base64.URLEncoding.EncodeToString([]byte("x")), nil, nil, 400},
			{"GET of no base64", "GET", "?dns=%2b%2f", nil, nil, 400},
			{"GET of a malformed query", "GET", "?dns=%zz", nil, nil, 400},
			{"PUT", "PUT", "?dns=" + encoded, nil, nil, 405},
			{"HEAD", "HEAD", "?dns=" + encoded, nil, nil, 405},
		} {
			before := len(w.asked)
			got := w.do(tt.method, "/dns-query"+tt.path, tt.body, tt.options...)
			if got.status != tt.want {
				t.Errorf("%s: %d %q, want %d", tt.name, got.status, got.body, tt.want)
			}
			switch asked := w.asked[before:]; {
			case tt.want != 200:
				if len(asked) != 0 {
					t.Errorf("%s: was asked %x", tt.name, asked)
				}
			case len(asked) != 1 || got.body != strings.TrimSuffix(string(asked[0]), "\n") || got.header.Get("Content-Type") != mediaType:
				t.Errorf("%s: asked %d, answer of %d bytes, %v", tt.name, len(asked), len(got.body), got.header)
			}
		}
	})
}

// What comes of a question that nobody answers.
func TestDNSFailures(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.change(func() {
			w.answer = func(context.Context, []byte) ([]byte, error) { return nil, errors.New("too busy") }
		})
		if got := w.do("GET", "/dns-query?dns=AAAA", nil); got.status != http.StatusInternalServerError || got.body != "too busy" {
			t.Errorf("%+v", got)
		}
		w.change(func() {
			w.answer = func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return []byte("late"), nil }
		})
		began := time.Now()
		got := w.do("GET", "/dns-query?dns=AAAA", nil)
		if took := time.Since(began).Round(time.Second); got.status != http.StatusGatewayTimeout || took != dnsTimeout {
			t.Errorf("%+v after %v, want %v", got, took, dnsTimeout)
		}
	})
}

// People ask by name and get JSON.
func TestDNSForPeople(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.change(func() { w.answer = func(_ context.Context, q []byte) ([]byte, error) { return answerTo(t, q), nil } })
		for _, tt := range []struct {
			path, want string
			status     int
		}{
			{"?q=www.example", `["192.0.2.1"]`, 200},
			{"?q=www.example.&t=AAAA", `["2001:db8::1"]`, 200},
			{"?q=www.example&t=txt", `["text \"quoted\""]`, 200},
			{"?q=empty.example", `[]`, 200},
			{"?q=missing.example", `{"Error":"DNS: NameError"}`, 200},
			{"?q=www.example&t=MX", "t: want A, AAAA or TXT", 400},
			{"?q=" + strings.Repeat("x", 300), "q: want the name of a host", 400},
			{"?q=" + strings.Repeat("x", 64) + ".example", "q: want the name of a host", 400},
			{"?q=a..b", "q: want the name of a host", 400},
		} {
			if got := w.do("GET", "/dns-query"+tt.path, nil); got.status != tt.status || got.body != tt.want {
				t.Errorf("%s: %d %s, want %d %s", tt.path, got.status, got.body, tt.status, tt.want)
			}
		}
		w.change(func() { w.answer = func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil } })
		if got := w.do("GET", "/dns-query?q=www.example", nil); !strings.HasPrefix(got.body, `{"Error":"`) {
			t.Errorf("%+v", got)
		}
	})
}

// answerTo answers questions about the names of the test above.
func answerTo(t *testing.T, question []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 || !m.RecursionDesired {
		t.Errorf("%x: %v", question, err)
	}
	m.Response = true
	q := m.Questions[0]
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}
	switch q.Name.String() {
	case "missing.example.":
		m.RCode = dnsmessage.RCodeNameError
	case "www.example.":
		m.Answers = []dnsmessage.Resource{{Header: h, Body: map[dnsmessage.Type]dnsmessage.ResourceBody{
			dnsmessage.TypeA:    &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
			dnsmessage.TypeAAAA: &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}},
			dnsmessage.TypeTXT:  &dnsmessage.TXTResource{TXT: []string{`text "quoted"`}},
		}[q.Type]}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// FuzzParseDNS: whatever the URL says, a question is not longer than DNS allows,
// and one for people can be read.
func FuzzParseDNS(f *testing.F) {
	for _, seed := range []string{
		"dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB", // RFC 8484 section 4.1.1
		"q=www.example&t=AAAA", "dns=", "q=.", "dns=%zz", "dns=AA==", "q=a..b", "t=A", ";", "q=\x00&t=txt",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rawQuery string) {
		q, err := parseDNS(rawQuery)
		if err != nil {
			var e *httpError
			if !errors.As(err, &e) && q.message != nil {
				t.Errorf("%v, and a message", err)
			}
			return
		}
		if len(q.message) > maxMessage {
			t.Errorf("a message of %d bytes", len(q.message))
		}
		if q.asJSON {
			var m dnsmessage.Message
			if err := m.Unpack(q.message); err != nil || len(m.Questions) != 1 {
				t.Errorf("%q made %x: %v", rawQuery, q.message, err)
			}
		}
	})
}

// FuzzRecordsOf: an answer of any bytes becomes JSON or an error.
func FuzzRecordsOf(f *testing.F) {
	question, err := newQuestion("www.example", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(question)
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 1})
	f.Fuzz(func(t *testing.T, answer []byte) {
		if records, err := recordsOf(answer); err == nil && records == nil {
			t.Error("neither records nor an error")
		}
	})
}
