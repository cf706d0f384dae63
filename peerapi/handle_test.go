package peerapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// SVC-86: what comes from a page of the web, or asks for another host, is refused.
func TestSVC86HostOriginReferer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := func(host string) option { return withHost(host) }
		for _, tt := range []struct {
			name   string
			option option
			want   int
		}{
			{"as peers ask", at(fmt.Sprintf("%v:%d", we4, w.port)), 200},
			{"IPv6", at(fmt.Sprintf("[%v]:%d", we6, w.port)), 200},
			{"peer", at("peer"), 200},
			{"own address, another port", at(fmt.Sprintf("%v:1", we4)), 200},
			{"address without port", at(we4.String()), 403},
			{"a name", at("we.tail.ts.net"), 403},
			{"a name and a port", at(fmt.Sprintf("we.tail.ts.net:%d", w.port)), 403},
			{"a name that a page may have", at(fmt.Sprintf("evil.example:%d", w.port)), 403},
			{"somebody else's address", at(fmt.Sprintf("%v:%d", peer4, w.port)), 403},
			{"loopback", at(fmt.Sprintf("127.0.0.1:%d", w.port)), 403},
			{"mapped", at(fmt.Sprintf("[::ffff:%v]:%d", we4, w.port)), 403},
			{"PEER", at("PEER"), 403},
			{"Origin", withHeader("Origin", "http://"+we4.String()), 403},
			{"empty Origin", withHeader("Origin", ""), 403},
			{"Referer", withHeader("Referer", "http://"+we4.String()), 403},
			{"empty Referer", withHeader("Referer", ""), 403},
		} {
			if got := w.do("GET", "/", nil, tt.option); got.status != tt.want {
				t.Errorf("%s: %+v, want %d", tt.name, got, tt.want)
			}
		}
		if got, _ := w.raw(w.peer, "GET / HTTP/1.0\r\n\r\n"); !strings.Contains(got, " 403 ") {
			t.Errorf("no Host: %q", got)
		}
		if got, _ := w.raw(w.peer, "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"); !strings.Contains(got, " 403 ") {
			t.Errorf("OPTIONS *: %q", got)
		}
	})
}

// SVC-34, SVC-86: a peer that knows us by a masquerade address asks for that one only.
func TestSVC86MasqueradeAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.change(func() { w.caller.Node.MasqV4 = masq4 })
		for host, want := range map[string]int{
			fmt.Sprintf("%v:1", masq4): 200, fmt.Sprintf("%v:1", we4): 403, fmt.Sprintf("[%v]:1", we6): 403, "peer": 200,
		} {
			if got := w.do("GET", "/", nil, withHost(host)); got.status != want {
				t.Errorf("%s: %+v, want %d", host, got, want)
			}
		}
	})
}

// SVC-87: only what looks like a browser gets a browser's headers.
func TestSVC87BrowserHeaders(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			name, value string
			browser     bool
		}{
			{"Accept-Language", "en", true},
			{"User-Agent", "Mozilla/5.0 (X11)", true},
			{"Accept-Encoding", "gzip, deflate, br", true},
			{"Accept-Encoding", "gzip, Deflate;q=0.5", true},
			{"Accept-Encoding", "gzip", false},
			{"Accept-Encoding", "xdeflate", false},
			{"User-Agent", "curl/8 Mozilla/", false},
			{"User-Agent", "Go-http-client/1.1", false},
		} {
			got := w.do("GET", "/", nil, withHeader(tt.name, tt.value))
			for _, h := range []string{"Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options"} {
				if has := got.header.Get(h) != ""; got.status != 200 || has != tt.browser {
					t.Errorf("%s: %s: %s %v, want %v", tt.name, tt.value, h, has, tt.browser)
				}
			}
		}
	})
}

// SVC-90: the first page greets whoever asks, and says whose node it is; nothing
// else is there.
func TestSVC90Paths(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const text = "Hello, Ada <b> at 100.64.0.2 (peer.tail.ts.net).\nThis is we.tail.ts.net.\nYou own it."
		got := w.do("GET", "/", nil)
		if got.status != 200 || got.body != text || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%+v", got)
		}
		if got := w.do("HEAD", "/", nil); got.status != 200 || got.body != "" {
			t.Errorf("HEAD: %+v", got)
		}
		if got := w.do("POST", "/", nil); got.status != 405 || got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST: %+v", got)
		}
		for _, path := range []string{
			"/x", "//", "/v0/put/x", "/v0/ingress", "/v0/goroutines", "/v0/env", "/v0/metrics", "/v0/magicsock",
			"/v0/dnsfwd", "/v0/interfaces", "/v0/sockstats", "/v0/doctor", "/v0/wol", "/v0/connector/transit-ip",
			"/dns-query/", "/dns-queryx", "/DNS-QUERY", "/debug/pprof/",
		} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				if got := w.do(method, path, nil); got.status != http.StatusNotFound {
					t.Errorf("%s %s: %+v", method, path, got)
				}
			}
		}
	})
}

// Who owns a node is greeted so: tagged nodes are nobody's (SVC-119), and a node
// is its own.
func TestGreetingOfOwners(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			name        string
			change      func()
			greets, own bool // by name; as the owner
		}{
			{"same user", func() {}, true, true},
			{"another user", func() { w.caller.Node.User = 8 }, true, false},
			{"tagged peer", func() { w.caller.Node.User = 7; w.caller.Node.Tags = []string{"tag:x"} }, false, false},
			{"tagged both", func() { w.self.Tags = []string{"tag:x"} }, false, false},
			{"tagged self", func() { w.caller.Node.Tags = nil }, true, false},
			{"itself", func() { w.caller.Node = w.self }, false, true},
			{"no profile", func() { w.caller.Node = newNode(3, "x.", peer4); w.caller.User.DisplayName = "" }, false, false},
		} {
			w.change(tt.change)
			got := w.do("GET", "/", nil).body
			if strings.Contains(got, "Ada") != tt.greets || strings.Contains(got, "You own it.") != tt.own {
				t.Errorf("%s: %q", tt.name, got)
			}
		}
	})
}
