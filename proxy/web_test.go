package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// webTarget answers with the headers that it got, and its trailers.
func webTarget(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s host=%s\n", r.Method, r.RequestURI, r.Host)
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			fmt.Fprintf(w, "%s: %s\n", name, strings.Join(r.Header[name], ","))
		}
		for name := range r.Trailer {
			fmt.Fprintf(w, "trailer %s\n", name)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// identities tells who connects, and that it is asked of the listener's connection.
func identities(t *testing.T, who Identity, err error) func(*Config) {
	return func(c *Config) {
		c.WhoIs = func(c net.Conn) (Identity, error) {
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("asked for a %T", c)
			}
			return who, err
		}
	}
}

// send sends a request as it is written and returns the answer.
func send(t *testing.T, address, request string) (*http.Response, string) {
	t.Helper()
	c := dial(t, "tcp", address)
	defer c.Close()
	return sendOn(t, c, bufio.NewReader(c), request)
}

func sendOn(t *testing.T, c net.Conn, r *bufio.Reader, request string) (*http.Response, string) {
	t.Helper()
	io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n"))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

var alice = Identity{Login: "alice@example.com", Name: "Älice", ProfilePic: "https://example.com/a.png"}

// SVC-101, acceptance item 9: the target learns who asks, whatever the client says.
func TestWebForwardTellsWhoAsks(t *testing.T) {
	s, _ := startSet(t, identities(t, alice, nil), "-R 0:"+webTarget(t)+",http")
	_, got := send(t, s.List()[0].Listen, "POST /page?a=1;b HTTP/1.1\nHost: app\nConnection: close, Tailscale-User-Login, X-Hop\nX-Hop: 1\n"+
		"Tailscale-User-Login: mallory\nTAILSCALE-USER-NAME: mallory\nTailscale_User_Login: mallory\nX-Real-IP: 1.2.3.4\nX_Forwarded_For: 1.2.3.4\nTailscale-App-Capabilities: {}\n"+
		"Tailscale-Funnel-Request: ?1\nX-Forwarded-For: 1.2.3.4\nForwarded: for=1.2.3.4\nTransfer-Encoding: chunked\nTrailer: Tailscale-User-Login\n\n"+
		"1\nx\n0\nTailscale-User-Login: mallory\n\n")
	for _, want := range []string{
		"POST /page?a=1;b host=app\n", "Tailscale-User-Login: alice@example.com\n", "Tailscale-User-Name: =?utf-8?q?=C3=84lice?=\n",
		"Tailscale-User-Profile-Pic: https://example.com/a.png\n", "Tailscale-Headers-Info: https://tailscale.com/s/serve-headers\n",
		"X-Forwarded-For: 127.0.0.1\n", "X-Forwarded-Host: app\n", "X-Forwarded-Proto: http\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the target did not get %q", want)
		}
	}
	for _, not := range []string{"mallory", "1.2.3.4", "Funnel", "Capabilities", "trailer", "X-Hop"} {
		if strings.Contains(got, not) {
			t.Errorf("the target got %q", not)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// SVC-102: who is tagged, or unknown, has no name, not even one of its own making.
func TestWebForwardOfTaggedAndUnknown(t *testing.T) {
	target := webTarget(t)
	tagged := alice
	tagged.Tagged = true
	for name, edit := range map[string]func(*Config){
		"tagged": identities(t, tagged, nil), "unknown": identities(t, alice, errors.New("nobody")),
	} {
		s, _ := startSet(t, edit, "-R 0:"+target+",http")
		_, got := send(t, s.List()[0].Listen, "GET / HTTP/1.1\nHost: app\nConnection: close\nTailscale-User-Login: mallory\n\n")
		if strings.Contains(got, "Tailscale") {
			t.Errorf("%s: the target got %s", name, got)
		}
	}
}

// upgradeTarget has each connection upgraded to a protocol that serve speaks. r has
// what the client sends.
func upgradeTarget(t *testing.T, serve func(c *net.TCPConn, r io.Reader)) string {
	t.Helper()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Upgrade", "echo")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c.(*net.TCPConn), buffered)
	}))
	t.Cleanup(target.Close)
	return target.Listener.Addr().String()
}

// upgrade asks for the other protocol.
func upgrade(t *testing.T, address, uri string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c := dial(t, "tcp", address)
	r := bufio.NewReader(c)
	io.WriteString(c, "GET "+uri+" HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	return c.(*net.TCPConn), r
}

// A connection upgrades to another protocol, and half-close is kept in it, whoever
// ends writing first (SVC-170).
func TestUpgradesKeepHalfClose(t *testing.T) {
	late := make(chan string, 1)
	clientFirst := upgradeTarget(t, func(c *net.TCPConn, r io.Reader) {
		b, _ := io.ReadAll(r)
		c.Write(append([]byte("got "), b...))
	})
	targetFirst := upgradeTarget(t, func(c *net.TCPConn, r io.Reader) {
		c.CloseWrite()
		b, _ := io.ReadAll(r)
		late <- string(b)
	})
	s, _ := startSet(t, func(c *Config) {
		identities(t, alice, nil)(c)
		loopbackAllowed(c)
	}, "-R 0:"+clientFirst+",http", "-R 0:"+targetFirst+",http", "-H 0")
	all := s.List()
	for _, way := range [][2]string{{all[0].Listen, "/"}, {all[2].Listen, "http://" + clientFirst + "/"}} {
		c, r := upgrade(t, way[0], way[1])
		io.WriteString(c, "hello")
		c.CloseWrite()
		if b, err := io.ReadAll(r); string(b) != "got hello" {
			t.Errorf("%s: the client ends first: got %q, %v", way[1], b, err)
		}
	}
	for _, way := range [][2]string{{all[1].Listen, "/"}, {all[2].Listen, "http://" + targetFirst + "/"}} {
		c, r := upgrade(t, way[0], way[1])
		io.ReadAll(r)
		io.WriteString(c, "late")
		c.CloseWrite()
		if got := <-late; got != "late" {
			t.Errorf("%s: the target ends first: it got %q", way[1], got)
		}
	}
}

// A request whose forward ends has no answer, least of all that all is well.
func TestEndedRequestsHaveNoAnswer(t *testing.T) {
	tally := &tally{}
	web, proxied := &webForward{log: quiet, tally: tally}, &httpProxy{log: quiet, tally: tally}
	for name, unreachable := range map[string]func(http.ResponseWriter, *http.Request, error){
		"forward": web.unreachable, "proxy": func(w http.ResponseWriter, _ *http.Request, err error) { proxied.unreachable(w, err) },
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			unreachable(w, r, fmt.Errorf("dial: %w", context.Canceled))
		}))
		c := dial(t, "tcp", server.Listener.Addr().String())
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%s: the client got %q", name, b)
		}
		server.Close()
	}
}

func TestWebForwardWithoutTarget(t *testing.T) {
	gone := nobody(t)
	s, _ := startSet(t, identities(t, alice, nil), "-R 0:"+gone+",http")
	resp, _ := send(t, s.List()[0].Listen, "GET / HTTP/1.1\nHost: app\nConnection: close\n\n")
	if resp.StatusCode != http.StatusBadGateway || s.List()[0].Failed != 1 {
		t.Errorf("status %d, %+v", resp.StatusCode, s.List()[0])
	}
}

// Connections that wait for another request do not hold up the end.
func TestWebForwardDrains(t *testing.T) {
	s, _ := startSet(t, identities(t, alice, nil), "-R 0:"+webTarget(t)+",http")
	c := dial(t, "tcp", s.List()[0].Listen)
	sendOn(t, c, bufio.NewReader(c), "GET / HTTP/1.1\nHost: app\n\n")
	if err := s.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}
