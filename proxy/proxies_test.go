package proxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/proxy/socks"
)

// loopbackAllowed lets clients of a proxy reach the targets of tests.
func loopbackAllowed(c *Config) { c.Proxies.AllowLoopback = true }

// SVC-165: CONNECT makes a tunnel, which keeps half-close (SVC-170).
func TestHTTPProxyConnects(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	s, _ := startSet(t, loopbackAllowed, "-H 0")
	c := dial(t, "tcp", s.List()[0].Listen)
	// What the client sends before the answer arrives, too.
	fmt.Fprintf(c, "CONNECT %v HTTP/1.1\r\nHost: x\r\n\r\nearly ", backend)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	io.WriteString(c, "late")
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); err != nil || string(got) != "echo early late" {
		t.Errorf("got %q, %v", got, err)
	}
	waitFor(t, "the tunnel to end", func() bool { return s.List()[0].Open == 0 })
	if st := s.List()[0]; st.BytesIn != 10 || st.BytesOut != 15 {
		t.Errorf("status %+v", st)
	}
}

// SVC-165: a request with an absolute URI is made, without what was for the proxy;
// the connection serves another one.
func TestHTTPProxyForwardsRequests(t *testing.T) {
	target := webTarget(t)
	s, _ := startSet(t, loopbackAllowed, "-H 0")
	c := dial(t, "tcp", s.List()[0].Listen)
	r := bufio.NewReader(c)
	for range 2 {
		resp, got := sendOn(t, c, r, "GET http://"+target+"/page?a=1;b HTTP/1.1\nHost: "+target+"\nProxy-Connection: keep-alive\n"+
			"Proxy-Authorization: Basic eDp5\nConnection: X-Hop\nX-Hop: 1\nX-Forwarded-For: 1.2.3.4\nVia: 1.0 other\n\n")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %s", resp.StatusCode, got)
		}
		for _, want := range []string{"GET /page?a=1;b host=" + target + "\n", "X-Forwarded-For: 1.2.3.4\n", "Via: 1.0 other,1.1 tsnode\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("the server did not get %q", want)
			}
		}
		if strings.Contains(got, "Proxy-") || strings.Contains(got, "X-Hop") {
			t.Errorf("the server got what was for the proxy: %s", got)
		}
	}
}

// SVC-165: what is no request for a proxy, and what cannot be reached, has a status
// of its own.
func TestHTTPProxyRefuses(t *testing.T) {
	gone := nobody(t)
	s, l := startSet(t, func(c *Config) {
		loopbackAllowed(c)
		c.Proxies.Allow = []Destination{mustDestination(t, "127.0.0.0/8"), mustDestination(t, "slow")}
	}, "-H 0")
	for _, test := range []struct {
		request string
		status  int
	}{
		{"GET /page HTTP/1.1\nHost: web", http.StatusBadRequest},
		{"GET https://web/page HTTP/1.1\nHost: web", http.StatusBadRequest},
		{"CONNECT web HTTP/1.1\nHost: web", http.StatusBadRequest},
		{"CONNECT :80 HTTP/1.1\nHost: web", http.StatusBadRequest},
		{"CONNECT elsewhere:80 HTTP/1.1\nHost: web", http.StatusForbidden},
		{"GET http://elsewhere/ HTTP/1.1\nHost: elsewhere", http.StatusForbidden},
		{"CONNECT " + gone + " HTTP/1.1\nHost: web", http.StatusBadGateway},
		{"GET http://" + gone + "/ HTTP/1.1\nHost: web", http.StatusBadGateway},
	} {
		resp, body := send(t, s.List()[0].Listen, test.request+"\nConnection: close\n\n")
		if resp.StatusCode != test.status || (resp.Header.Get(headerConnectError) != "") != (test.status != http.StatusBadRequest) {
			t.Errorf("%s: status %d with header %q, want %d: %s", test.request, resp.StatusCode, resp.Header.Get(headerConnectError), test.status, body)
		}
	}
	for request, want := range map[string]string{"GET /page": "set it as such", "GET https://web/page": "GET https://…: this proxy fetches http URLs only", "GET ftp://web/": "CONNECT"} {
		if _, body := send(t, s.List()[0].Listen, request+" HTTP/1.1\nHost: web\nConnection: close\n\n"); !strings.Contains(body, want) {
			t.Errorf("%s: %s", request, body)
		}
	}
	l.refuse = os.ErrDeadlineExceeded
	if resp, _ := send(t, s.List()[0].Listen, "CONNECT slow:80 HTTP/1.1\nHost: web\n\n"); resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("no answer: status %d", resp.StatusCode)
	}
}

func mustDestination(t *testing.T, text string) Destination {
	t.Helper()
	d, err := ParseDestination(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// SVC-165: with passwords, one is wanted.
func TestHTTPProxyWantsPassword(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	s, _ := startSet(t, func(c *Config) {
		loopbackAllowed(c)
		c.Proxies.Passwords = map[string]string{"alice": "secret"}
	}, "-H 0")
	for credentials, status := range map[string]int{
		"": http.StatusProxyAuthRequired, "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret")): http.StatusOK,
		"Basic " + base64.StdEncoding.EncodeToString([]byte("alice:guess")): http.StatusProxyAuthRequired,
		"Basic " + base64.StdEncoding.EncodeToString([]byte("bob:")):        http.StatusProxyAuthRequired,
		"Bearer x": http.StatusProxyAuthRequired,
	} {
		c := dial(t, "tcp", s.List()[0].Listen)
		fmt.Fprintf(c, "CONNECT %v HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %s\r\n\r\n", backend, credentials)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode != status || status == http.StatusProxyAuthRequired && resp.Header.Get("Proxy-Authenticate") == "" {
			t.Errorf("%q: %v, %v; want status %d", credentials, resp, err, status)
		}
		c.Close()
	}
}

// SVC-166: one port serves both.
func TestProxiesShareAPort(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	at := filepath.Join(t.TempDir(), "proxies")
	s, _ := startSet(t, loopbackAllowed, "-D unix:"+at, "-H unix:"+at)
	if len(s.List()) != 1 {
		t.Fatalf("%+v", s.List())
	}
	web := dial(t, "unix", at)
	resp, _ := sendOn(t, web, bufio.NewReader(web), "GET / HTTP/1.1\nHost: web\nConnection: close\n\n")
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("HTTP: status %d", resp.StatusCode)
	}
	c := dial(t, "unix", at)
	if got := socksConnect(t, c, backend); got != 0 {
		t.Fatalf("SOCKS5: reply %d", got)
	}
	if got := askOn(t, c, "hello"); got != "echo hello" {
		t.Errorf("SOCKS5: got %q", got)
	}
}

// socksConnect asks for a connection and returns the reply.
func socksConnect(t *testing.T, c net.Conn, to net.Addr) byte {
	t.Helper()
	a := to.(*net.TCPAddr)
	c.Write(append(append([]byte{5, 1, 0, 5, 1, 0, 1}, a.IP.To4()...), byte(a.Port>>8), byte(a.Port)))
	b := make([]byte, 2+10)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return b[3]
}

// SVC-167: what is on this machine alone is out of reach, also by a name that
// resolves to it.
func TestProxiesKeepOffLoopback(t *testing.T) {
	var accepted atomic.Int32
	backend := listen(t, "tcp", "127.0.0.1:0", func(net.Conn) { accepted.Add(1) })
	s, _ := startSet(t, nil, "-D 0", "-H 0")
	if got := socksConnect(t, dial(t, "tcp", s.List()[0].Listen), backend); got != 2 {
		t.Errorf("SOCKS5 to loopback: reply %d, want 2", got)
	}
	_, port, _ := net.SplitHostPort(backend.String())
	for _, host := range []string{"localhost", "[::ffff:127.0.0.1]", "[fe80::1]", "0.0.0.0"} {
		resp, _ := send(t, s.List()[1].Listen, "CONNECT "+host+":"+port+" HTTP/1.1\nHost: x\n\n")
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d", host, resp.StatusCode)
		}
	}
	// Nobody learns which ports are open.
	_, closed, _ := net.SplitHostPort(nobody(t))
	if resp, _ := send(t, s.List()[1].Listen, "CONNECT localhost:"+closed+" HTTP/1.1\nHost: x\n\n"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a closed port: status %d", resp.StatusCode)
	}
	dial(t, "tcp", backend.String()) // what came before is accepted by the time this is
	waitFor(t, "a connection", func() bool { return accepted.Load() > 0 })
	if n := accepted.Load(); n > 1 {
		t.Errorf("%d connections were made to what nobody may reach", n-1)
	}
}

// Should the node connect without asking, nothing goes over the connection.
func TestProxiesCloseWhatIsNotPermitted(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	p := Proxies{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		return new(loopback).Dial(ctx, r.Network, backend.String())
	}}
	if _, err := p.dial(t.Context(), "", "tcp", "web:80"); !errors.Is(err, socks.ErrNotAllowed) {
		t.Errorf("got %v", err)
	}
}

// SVC-168: a proxy for everybody is no accident.
func TestProxiesRefuseToBeOpen(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*Proxies)
		ok   bool
	}{
		"neither":   {func(*Proxies) {}, false},
		"allowed":   {func(p *Proxies) { p.AllowOpen = true }, true},
		"passwords": {func(p *Proxies) { p.Passwords = map[string]string{"a": "b"} }, true},
	} {
		s, _ := startSet(t, func(c *Config) { test.edit(&c.Proxies) })
		if err := s.Apply(within(t), specs(t, "-D *:0")); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A client chooses its exit node by the name it gives.
func TestProxiesChooseExitNode(t *testing.T) {
	var exit atomic.Pointer[string]
	s, _ := startSet(t, func(c *Config) {
		c.Proxies.Passwords = map[string]string{"alice": "secret"}
		c.Proxies.Dial = func(_ context.Context, r Request) (net.Conn, error) {
			exit.Store(&r.ExitNode)
			return nil, errors.New("that is all")
		}
	}, "-D 0")
	for user, want := range map[string]string{"alice": "", "alice+exit=berlin": "berlin"} {
		c := dial(t, "tcp", s.List()[0].Listen)
		c.Write([]byte{5, 1, 2, 1, byte(len(user))})
		c.Write(append([]byte(user), 6))
		c.Write(append([]byte("secret"), 5, 1, 0, 1, 192, 0, 2, 1, 0, 80))
		if b, err := io.ReadAll(c); err != nil || len(b) != 4+10 || b[5] != 1 {
			t.Errorf("%s: %v, %v", user, b, err)
		}
		if got := *exit.Load(); got != want {
			t.Errorf("%s: exit node %q, want %q", user, got, want)
		}
	}
}

// basic returns the header of a user's credentials.
func basic(credentials string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials)) + "\n"
}

// A client of HTTP chooses its exit node in the same way, with a password and
// without. Connections are not kept for who asks for another way.
func TestHTTPProxyChoosesExitNode(t *testing.T) {
	target := webTarget(t)
	var mu sync.Mutex
	for _, passwords := range []map[string]string{nil, {"alice": "secret"}} {
		var exits []string
		s, _ := startSet(t, func(c *Config) {
			loopbackAllowed(c)
			c.Proxies.Passwords = passwords
			inner := c.Proxies.Dial
			c.Proxies.Dial = func(ctx context.Context, r Request) (net.Conn, error) {
				mu.Lock()
				exits = append(exits, r.ExitNode)
				mu.Unlock()
				return inner(ctx, r)
			}
		}, "-H 0")
		c := dial(t, "tcp", s.List()[0].Listen)
		r := bufio.NewReader(c)
		for _, user := range []string{"alice", "alice+exit=berlin", "alice", "alice+exit=paris", "alice+exit=berlin"} {
			resp, body := sendOn(t, c, r, "GET http://"+target+"/ HTTP/1.1\nHost: x\n"+basic(user+":secret")+"\n")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: status %d, %s", user, resp.StatusCode, body)
			}
		}
		resp, err := connectAs(t, s.List()[0].Listen, target, "alice+exit=rome:secret")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("CONNECT: %v, %v", resp, err)
		}
		mu.Lock()
		if got := fmt.Sprintf("%q", exits); got != `["" "berlin" "paris" "berlin" "rome"]` {
			t.Errorf("connections were made by %s", got)
		}
		mu.Unlock()
	}
}

// connectAs asks for a tunnel.
func connectAs(t *testing.T, proxy, to, credentials string) (*http.Response, error) {
	t.Helper()
	c := dial(t, "tcp", proxy)
	io.WriteString(c, strings.ReplaceAll("CONNECT "+to+" HTTP/1.1\nHost: x\n"+basic(credentials)+"\n", "\n", "\r\n"))
	return http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
}

// What is kept for the next request goes the way that requests take now.
func TestHTTPProxyFollowsTheWay(t *testing.T) {
	target := webTarget(t)
	var way atomic.Value
	var dials atomic.Int32
	way.Store("berlin")
	s, _ := startSet(t, func(c *Config) {
		loopbackAllowed(c)
		c.Proxies.Way = func() string { return way.Load().(string) }
		inner := c.Proxies.Dial
		c.Proxies.Dial = func(ctx context.Context, r Request) (net.Conn, error) { dials.Add(1); return inner(ctx, r) }
	}, "-H 0")
	c := dial(t, "tcp", s.List()[0].Listen)
	r := bufio.NewReader(c)
	for _, step := range []struct {
		way  string
		want int32
	}{{"berlin", 1}, {"berlin", 1}, {"", 2}, {"", 2}} {
		way.Store(step.way)
		sendOn(t, c, r, "GET http://"+target+"/ HTTP/1.1\nHost: x\n\n")
		if n := dials.Load(); n != step.want {
			t.Errorf("by %q: %d connections, want %d", step.way, n, step.want)
		}
	}
}

// Guesses of a password count, and cost time.
func TestProxiesSlowGuessesDown(t *testing.T) {
	s, _ := startSet(t, func(c *Config) { c.Proxies.Passwords = map[string]string{"alice": "secret"} }, "-H 0", "-D 0")
	began := time.Now()
	resp, err := connectAs(t, s.List()[0].Listen, "web:80", "alice:guess")
	if err != nil || resp.StatusCode != http.StatusProxyAuthRequired {
		t.Errorf("HTTP: %v, %v", resp, err)
	}
	if took := time.Since(began); took < socks.RefusalPause {
		t.Errorf("HTTP: refused after %v", took)
	}
	c := dial(t, "tcp", s.List()[1].Listen)
	c.Write([]byte("\x05\x01\x02\x01\x05alice\x05guess"))
	if b, err := io.ReadAll(c); string(b) != "\x05\x02\x01\x01" {
		t.Errorf("SOCKS5: %q, %v", b, err)
	}
	if took := time.Since(began); took < 2*socks.RefusalPause {
		t.Errorf("SOCKS5: both refused after %v", took)
	}
	waitFor(t, "both to count", func() bool { all := s.List(); return all[0].Failed == 1 && all[1].Failed == 1 })
}

func TestDestinations(t *testing.T) {
	for _, test := range []struct {
		rule, address string
		ok            bool
	}{
		{"web", "web:80", true}, {"web", "WEB.:443", true}, {"web", "web2:80", false}, {"web:80", "web:81", false},
		{"web:80-90", "web:90", true}, {"*.example.com", "a.b.example.com:1", true}, {"*.example.com", "example.com:1", false},
		{"*", "anything:1", true}, {"*:443", "anything:80", false}, {"10.0.0.0/8", "10.1.2.3:1", true}, {"10.0.0.0/8:22", "10.1.2.3:23", false},
		{"10.0.0.0/8", "web:80", false}, {"100.64.0.1", "100.64.0.1:5", true}, {"fd7a::/16", "[fd7a::1]:80", true}, {"[fd7a::1]:80", "[fd7a::1]:80", true},
		{"[fd7a::1]:80", "[fd7a::1]:81", false}, {"10.0.0.0/8", "[::ffff:10.1.2.3]:80", true}, {"web", "web", false}, {"web", "web:0", false},
	} {
		p := Proxies{Allow: []Destination{mustDestination(t, test.rule)}}
		if err := p.permits(test.address); (err == nil) != test.ok {
			t.Errorf("%s allows %s: %v", test.rule, test.address, err)
		} else if err != nil && strings.HasSuffix(test.address, ":80") && !errors.Is(err, socks.ErrNotAllowed) {
			t.Errorf("%s: %v", test.address, err)
		}
	}
	for _, text := range []string{"", "a b", "web:", "web:0", "web:9-8", "a*b", "*a*", "[::1", "[::1]x", "10.0.0.0/99"} {
		if d, err := ParseDestination(text); err == nil {
			t.Errorf("%q gave %+v", text, d)
		}
	}
}
