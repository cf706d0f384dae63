package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ask makes a request with the headers given, as name and value in turn.
func ask(t *testing.T, c *Client, method, path, body string, headers ...string) (status int, answer string, h http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), method, "http://"+localHost+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// SVC-121, SVC-123: the socket is for all users, and every answer tells versions.
func TestSocketAndHeaders(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	info, err := os.Stat(c.path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, path := range []string{"/", prefix + "status", prefix + "nothing"} {
		status, text, h := ask(t, c, "GET", path, "")
		if h.Get("Tailscale-Version") != "1.2.3-test" || h.Get("Tailscale-Cap") != "130" {
			t.Errorf("%s: %v", path, h)
		}
		if want := map[bool]int{true: 404, false: 200}[strings.HasSuffix(path, "nothing")]; status != want {
			t.Errorf("%s: %d %s, want %d", path, status, text, want)
		}
	}
}

// SVC-122: no web page gets an answer, whatever name it finds for us.
func TestOnlyProgramsAreAnswered(t *testing.T) {
	s, c := serve(t, newFake(), nil)
	for _, h := range [][]string{
		{"Referer", "http://example.org/"}, {"Origin", "http://example.org"}, {"Origin", "null"},
		{"Host", "example.org"}, {"Host", "localhost:80"}, {"Host", "127.0.0.1:80"}, {"Host", localHost + ":80"},
	} {
		if status, text, _ := ask(t, c, "GET", prefix+"status", "", h...); status != http.StatusForbidden {
			t.Errorf("%v: %d %s", h, status, text)
		}
	}
	if d := s.Stats().Denied; d != 7 {
		t.Errorf("%d counted as denied", d)
	}
}

// SVC-122: where there are no peer credentials, a password is asked, and then
// loopback names will do.
func TestPassword(t *testing.T) {
	s := New(Config{Node: newFake(), Password: "secret"})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, ln)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, tt := range []struct {
		host, password string
		status         int
	}{
		{"", "", 401}, {"", "wrong", 403}, {"", "secret", 200}, {"localhost:1", "secret", 200},
		{"[::1]:1", "secret", 200}, {localHost, "secret", 200}, {"example.org:80", "secret", 403}, {"192.0.2.1:80", "secret", 403},
	} {
		req, err := http.NewRequestWithContext(within(t), "GET", "http://"+ln.Addr().String()+prefix+"goroutines", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.host != "" {
			req.Host = tt.host
		}
		if tt.password != "" {
			req.SetBasicAuth("", tt.password)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%+v: %d", tt, resp.StatusCode)
		}
	}
}

// SVC-124: root, our own user and the operator may change the node; others, and
// who is not known, may look.
func TestWhoMayWrite(t *testing.T) {
	own := os.Geteuid()
	s := New(Config{Node: newFake(), Operator: 4711})
	for _, tt := range []struct {
		caller caller
		write  bool
	}{
		{caller{0, true}, true}, {caller{own, true}, true}, {caller{4711, true}, true},
		{caller{own + 4242, true}, false}, {caller{-1, false}, false}, {caller{0, false}, false},
	} {
		req, err := http.NewRequestWithContext(context.WithValue(t.Context(), callerKey{}, tt.caller), "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.permits(req, MayWrite) != tt.write || !s.permits(req, MayRead) {
			t.Errorf("%+v: want write %v", tt.caller, tt.write)
		}
	}
	nobody := New(Config{Node: newFake(), Operator: -1})
	req, _ := http.NewRequestWithContext(context.WithValue(t.Context(), callerKey{}, caller{-1, true}), "GET", "/", nil)
	if nobody.permits(req, MayWrite) {
		t.Error("no operator: user -1 may write")
	}
}

// SVC-124: what a user may not do is refused with a text; SVC-126: what changes
// something is no GET.
func TestDenied(t *testing.T) {
	s := New(Config{Node: newFake(), Operator: -1})
	ln, err := net.Listen("tcp", "127.0.0.1:0") // has no credentials
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, ln)
	for _, r := range endpoints() {
		req, err := http.NewRequestWithContext(within(t), r.method, "http://"+ln.Addr().String()+prefix+r.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = localHost
		if r.access == MayRead {
			continue
		}
		resp, err := http.DefaultTransport.(*http.Transport).Clone().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(text), "operator") {
			t.Errorf("%s %s: %d %s", r.method, r.path, resp.StatusCode, text)
		}
	}
	_, c := serve(t, newFake(), nil)
	for _, path := range []string{"start", "logout", "login-interactive", "ping", "dial", "check-prefs", "shutdown", "debug-capture"} {
		if status, text, _ := ask(t, c, "GET", prefix+path, ""); status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d %s", path, status, text)
		}
	}
}

// SVC-124: who may use each endpoint.
func TestAccessOfEndpoints(t *testing.T) {
	var b strings.Builder
	for _, r := range endpoints() {
		fmt.Fprintf(&b, "%-5s %s %s\n", map[Access]string{MayRead: "all", MayWrite: "write"}[r.access], r.method, r.path)
	}
	golden(t, "access.txt", b.String())
}

// A socket that an ended process has left is replaced; that of a live one, and a
// file that is none, are not.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "s.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("second: %v", err)
	}
	ln.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("of a live process without a lock: %v", err)
	}
	stale.Close()
	if ln, err = Listen(path); err != nil {
		t.Fatalf("stale: %v", err)
	}
	ln.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
}

// An error names the socket that nobody serves.
func TestNoServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := NewClient(path).Status(within(t)); !errors.Is(err, ErrNoServer) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

// There are few connections at a time; more wait, and get their turn.
func TestConnectionsAreBounded(t *testing.T) {
	s, c := serve(t, newFake(), nil)
	var held []net.Conn
	for range maxConns {
		conn, err := net.Dial("unix", c.path)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Status(within(t))
		done <- err
	}()
	waitFor(t, "connections", func() bool { return s.Stats().Connections == maxConns })
	select {
	case err := <-done:
		t.Fatalf("one too many was answered: %v", err)
	default:
	}
	for _, conn := range held {
		conn.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A user who may only look has few connections, and all such users together leave
// room for those who may change the node.
func TestOneUserLeavesRoom(t *testing.T) {
	var uid atomic.Int64
	const first, root = 5000, 0
	s, c := serve(t, newFake(), func(c *Config) {
		c.peerUID = func(net.Conn) (int, error) { return int(uid.Load()), nil }
	})
	connect := func() net.Conn {
		before := s.Stats().Connections
		conn, err := net.Dial("unix", c.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		waitFor(t, "the connection", func() bool { return s.Stats().Connections > before })
		return conn
	}
	for user := range maxOthers / maxOneUser {
		uid.Store(int64(first + user))
		for range maxOneUser {
			connect()
		}
		if connect(); s.Stats().Crowded != uint64(user+1) {
			t.Fatalf("%d connections were closed at once", s.Stats().Crowded)
		}
	}
	uid.Store(first + 100)
	conn := connect()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("one user more is answered: %d", n)
	}
	uid.Store(root)
	if _, err := c.Status(within(t)); err != nil {
		t.Errorf("root: %v", err)
	}
}

// SVC-134: a client that does not read an ordinary answer is disconnected, too,
// and gives its place back.
func TestSlowReader(t *testing.T) {
	n := newFake()
	big := testMap()
	big.Peers[0].Hostname = strings.Repeat("x", 4*maxPiece)
	n.snapshot.Store(Snapshot{State: Running, NodeKey: selfKey, Netmap: big})
	s, c := serve(t, n, func(c *Config) { c.writeTimeout = 20 * time.Millisecond })
	conn, err := net.Dial("unix", c.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %sstatus HTTP/1.1\r\nHost: %s\r\n\r\n", prefix, localHost)
	waitFor(t, "the end of who does not read", func() bool { return s.Stats().Slow == 1 })
	if got, err := io.ReadAll(conn); err != nil || len(got) > 4*maxPiece {
		t.Errorf("%d bytes were answered all the same, %v", len(got), err)
	}
}

// A request body has a limit.
func TestLongBody(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	long := `{"Hostname": "` + strings.Repeat("x", maxBody) + `"}`
	if status, _, _ := ask(t, c, "PATCH", prefix+"prefs", long); status != http.StatusBadRequest {
		t.Errorf("status %d", status)
	}
}

// Endpoints of the program's own stand beside the others.
func TestHandle(t *testing.T) {
	n := newFake()
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Node: n, Operator: -1})
	s.Handle(http.MethodGet, "hello", MayRead, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `"hello"`) })
	s.Handle(http.MethodGet, "secret", MayWrite, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `"secret"`) })
	run(t, s, ln)
	req, _ := http.NewRequestWithContext(context.WithValue(t.Context(), callerKey{}, caller{os.Geteuid() + 1, true}), "GET", prefix+"tsnode/secret", nil)
	w := httptest.NewRecorder()
	if s.serveHTTP(w, req); w.Code != http.StatusForbidden {
		t.Errorf("another user: %d %s", w.Code, w.Body)
	}
	var got string
	if err := NewClient(path).Call(within(t), http.MethodGet, "tsnode/hello", nil, &got); err != nil || got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A request that ends the program is answered all the same.
func TestEndOfServeAnswersRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Config{Node: newFake(), Operator: -1})
	s.Handle(http.MethodPost, "end", MayRead, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
		io.WriteString(w, `"ended"`)
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	var got string
	if err := NewClient(path).Call(within(t), http.MethodPost, "tsnode/end", nil, &got); err != nil || got != "ended" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
}

// The text of a failure is the server's, whatever form it has.
func TestStatusError(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	for _, tt := range []struct{ method, path, want string }{
		{"POST", "serve-config", "serve is not implemented in tsnode yet"},
		{"GET", "nothing", "404 page not found"},
		{"GET", "cert/me.tailnet.test", "HTTPS certificates"},
		{"POST", "debug?action=rebind", "does not know"},
		{"POST", "shutdown", "does not end by request"},
		{"GET", "metrics", "no metrics"},
	} {
		err := c.Call(within(t), tt.method, tt.path, nil, nil)
		var status *StatusError
		if !errors.As(err, &status) || !strings.Contains(status.Text, tt.want) {
			t.Errorf("%s %s: %v, want %q", tt.method, tt.path, err, tt.want)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
