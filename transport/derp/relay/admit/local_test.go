package admit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// candidate is a client that wants in.
func candidate(k key.NodePublic) relay.Candidate {
	return relay.Candidate{Key: k, Addr: netip.MustParseAddrPort("203.0.113.9:4321")}
}

// serveUnix runs a server on a unix socket and returns the socket's path.
func serveUnix(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admit") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := host.OS{}.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(ln) }()
	t.Cleanup(func() {
		hs.Close()
		<-ended
	})
	return path
}

// wantErr checks an outcome: "" is none, else each text must be in the error.
func wantErr(t *testing.T, err error, texts ...string) {
	t.Helper()
	if len(texts) == 0 {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want an error with %q", err, text)
		}
	}
}

// TestLocalNode: DERP-73: the node on the host is asked with the path and host
// name of its service, and each of its answers means what it should. A node that
// does not say yes or no is logged.
func TestLocalNode(t *testing.T) {
	k := key.NewNode().Public()
	for name, c := range map[string]struct {
		status int
		body   string
		want   []string // in the error; none: admitted
	}{
		"known":          {200, `{"Node":{}}`, nil},
		"known, no JSON": {200, "", nil},
		"unknown":        {404, "no match for IP:port", []string{k.Short(), "not authorized"}},
		"too old":        {400, "invalid 'addr' parameter\n", []string{k.Short(), "too old", "update"}},
		"bad key":        {400, "invalid nodekey in 'addr' parameter", []string{k.Short(), "status 400"}},
		"forbidden":      {403, "whois access denied", []string{k.Short(), "status 403", "whois access denied"}},
		"broken":         {500, "\x1b[2J" + strings.Repeat("x", 100<<10), []string{"status 500", `\x1b[2J`}},
	} {
		t.Run(name, func(t *testing.T) {
			path := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
				want := "/localapi/v0/whois?addr=nodekey%3A" + k.Hex()
				if r.Method != http.MethodGet || r.RequestURI != want || r.Host != "local-tailscaled.sock" {
					t.Errorf("asked %s %s of %s, want GET %s", r.Method, r.RequestURI, r.Host, want)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			var logged bytes.Buffer
			err := LocalNode(path, slog.New(slog.NewTextHandler(&logged, nil)))(t.Context(), candidate(k))
			wantErr(t, err, c.want...)
			if asked := c.status == 200 || c.status == 404; asked != (logged.Len() == 0) {
				t.Errorf("logged %q", logged.String())
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes repeats the answer", len(err.Error()))
			}
		})
	}
}

// TestLocalNodeAbsent: DERP-73: without a daemon nobody is admitted, and the
// error names the socket that was tried.
func TestLocalNodeAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	wantErr(t, LocalNode(path, nil)(t.Context(), candidate(key.NewNode().Public())), path, "is it running")
}

// TestDefaultSocket: an empty path is that of the platform, where it has one.
func TestDefaultSocket(t *testing.T) {
	for goos, want := range map[string]string{
		"linux":   "/var/run/tailscale/tailscaled.sock",
		"freebsd": "/var/run/tailscale/tailscaled.sock",
		"darwin":  "/var/run/tailscaled.socket",
		"windows": "",
	} {
		if got := defaultSocket(goos); got != want {
			t.Errorf("%s: %q, want %q", goos, got, want)
		}
	}
	if got := newLocalNode("x", host.OS{}).socket; got != "x" {
		t.Errorf("a path that is given becomes %q", got)
	}
}

// A pipe is a network whose only service takes connections from accept.
type pipe struct {
	host.Network // nil: nothing else is asked of it

	accept func(net.Conn)
}

func (p pipe) Dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go p.accept(there)
	return here, nil
}

// TestLocalNodeHangs: DERP-73 with its FIX: a daemon that does not answer, or
// not to the end, costs a login five seconds and the client is refused.
func TestLocalNodeHangs(t *testing.T) {
	for name, answer := range map[string]string{
		"silent":          "",
		"in mid-header":   "HTTP/1.1 200 OK\r\n",
		"in a 500's body": "HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := pipe{accept: func(c net.Conn) {
					defer c.Close()
					c.Read(make([]byte, 4096)) // the request
					io.WriteString(c, answer)
					io.Copy(io.Discard, c)
				}}
				start := time.Now()
				err := newLocalNode("/s", network).check(t.Context(), candidate(key.NewNode().Public()))
				wantErr(t, err, "no answer in 5s", "/s")
				if d := time.Since(start); d != 5*time.Second {
					t.Errorf("refused after %v", d)
				}
			})
		})
	}
}

// TestSelfCheck: DERP-78: the host's own node is verified as a prober from ::1.
func TestSelfCheck(t *testing.T) {
	self := key.NewNode().Public()
	status := fmt.Sprintf(`{"Version":"1","Self":{"PublicKey":%q,"CapMap":{"x":[%q]}}}`, self, strings.Repeat("y", 64<<10))
	for name, c := range map[string]struct {
		status int
		body   string
		want   []string
	}{
		"verified":   {200, status, nil},
		"no node":    {200, `{"Self":null}`, []string{"log it in"}},
		"no key":     {200, `{"Self":{"PublicKey":"nodekey:"}}`, []string{"for its key"}},
		"not JSON":   {200, `<html>`, []string{"for its key"}},
		"endless":    {200, `{"x":"` + strings.Repeat("x", maxStatus), []string{"for its key"}},
		"not served": {404, `not found`, []string{"status 404", "not found"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
				if r.RequestURI != "/localapi/v0/status?peers=false" {
					t.Errorf("asked for %s", r.RequestURI)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			asked := false
			err := SelfCheck(t.Context(), path, func(_ context.Context, c relay.Candidate) error {
				asked = true
				if c.Key != self || !c.Prober || c.Addr.Addr() != netip.IPv6Loopback() {
					t.Errorf("verified as %+v", c)
				}
				return nil
			})
			wantErr(t, err, c.want...)
			if asked != (len(c.want) == 0) {
				t.Errorf("verified: %v", asked)
			}
		})
	}
	path := serveUnix(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, status) })
	err := SelfCheck(t.Context(), path, func(context.Context, relay.Candidate) error { return errors.New("so there") })
	wantErr(t, err, "own node is refused", "so there")
}
