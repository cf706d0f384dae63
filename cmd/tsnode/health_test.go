package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/node"
)

// healthMux serves the endpoints of a node in a certain state.
func healthMux(alive error, s *node.Status, environ map[string]string) *http.ServeMux {
	m := http.NewServeMux()
	addHealth(m, func(context.Context) error { return alive }, func() *node.Status { return s }, podAddresses(func(name string) string { return environ[name] }))
	return m
}

// What the endpoints answer in each state of a node (SVC-159, SVC-171): a node that
// hangs is not alive, whatever its state; one with a direct path is ready without a
// relay, and one whose control server is away stays ready.
func TestHealthOfStates(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("100.64.0.1")}
	hangs := errors.New("wireguard.Engine does not turn")
	for _, test := range []struct {
		name                 string
		alive                error
		status               node.Status
		livez, readyz, healt string
	}{
		{"starting", nil, node.Status{State: node.StateStarting}, "200 ok", "503 waiting for the control server", "503 waiting for an address of the tailnet"},
		{"logged out", nil, node.Status{State: node.StateNeedsLogin}, "200 ok", "503 waiting for a login: run 'tsnode login'", "503 waiting for an address of the tailnet"},
		{"login", nil, node.Status{State: node.StateNeedsLogin, AuthURL: "https://x"}, "200 ok", "503 waiting for a login in the browser", "503 waiting for an address of the tailnet"},
		{"no relay", nil, node.Status{State: node.StateRunning, TailscaleIPs: ips}, "200 ok", "503 waiting for a relay", "200 ok"},
		{"direct", nil, node.Status{State: node.StateRunning, TailscaleIPs: ips, DirectPaths: 1}, "200 ok", "200 ok", "200 ok"},
		{"relayed", nil, node.Status{State: node.StateRunning, TailscaleIPs: ips, Relayed: true}, "200 ok", "200 ok", "200 ok"},
		{"no control", nil, node.Status{State: node.StateRunning, TailscaleIPs: ips, Relayed: true, ControlError: "x"}, "200 ok", "200 ok", "200 ok"},
		{"hangs", hangs, node.Status{State: node.StateRunning, TailscaleIPs: ips, Relayed: true}, "503 wireguard.Engine does not turn", "200 ok", "200 ok"},
	} {
		m := healthMux(test.alive, &test.status, nil)
		for path, want := range map[string]string{"/livez": test.livez, "/readyz": test.readyz, "/healthz": test.healt} {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if got := fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String())); got != want {
				t.Errorf("%s: %s says %q, want %q", test.name, path, got, want)
			}
		}
	}
}

// /healthz tells the addresses of the pod, by family (SVC-171).
func TestHealthzTellsThePod(t *testing.T) {
	for _, test := range []struct{ ips, ip, want4, want6 string }{
		{"", "", "", ""},
		{"", "10.1.2.3", "10.1.2.3", ""},
		{"", "fd00::1", "", "fd00::1"},
		{"10.1.2.3,fd00::1", "10.1.2.3", "10.1.2.3", "fd00::1"},
		{"fd00::1, 10.1.2.3", "fd00::1", "10.1.2.3", "fd00::1"},
		{"10.1.2.3", "fd00::9", "10.1.2.3", "fd00::9"},
		{"::ffff:10.1.2.3", "", "10.1.2.3", ""},
		{"x\r\nSet-Cookie: y", "pod", "", ""},
	} {
		m := healthMux(nil, &node.Status{}, map[string]string{"POD_IPS": test.ips, "POD_IP": test.ip})
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		got4, got6 := w.Header().Get(headerPodIPv4), w.Header().Get(headerPodIPv6)
		if got4 != test.want4 || got6 != test.want6 {
			t.Errorf("POD_IPS %q, POD_IP %q: %q and %q, want %q and %q", test.ips, test.ip, got4, got6, test.want4, test.want6)
		}
	}
}

// /livez waits for a node that hangs no longer than the limit: this one was never
// started.
func TestLivezHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := http.NewServeMux()
		addHealth(m, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, aliveLimit)
			defer cancel()
			<-ctx.Done()
			return ctx.Err()
		}, nil, nil)
		began, w := time.Now(), httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
		if w.Code != http.StatusServiceUnavailable || time.Since(began) != aliveLimit {
			t.Errorf("%d after %v", w.Code, time.Since(began))
		}
	})
}

// A node stays ready while its control server is away, and is so again after a
// restart of that.
func TestReadyWithoutControl(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "alone"), "--health", "127.0.0.1:0")...)
	addr := strings.TrimPrefix(p.find(`health and metrics on (\S+)`), "http://")
	p.find("running as alone")
	lines := make(chan string)
	go func() {
		for p.lines.Scan() {
			if strings.Contains(p.lines.Text(), "control") {
				lines <- p.lines.Text()
			}
		}
		close(lines)
	}()
	awaitHealth(t, addr, "/readyz")
	tailnet.StopControl()
	select {
	case <-lines: // it has noticed
	case <-time.After(patience):
		t.Fatal("the node does not say that control is away")
	}
	for _, path := range []string{"/readyz", "/livez", "/healthz"} {
		if _, err := askHealth(t.Context(), addr, path); err != nil {
			t.Errorf("without control: %v", err)
		}
	}
	if err := tailnet.StartControl(); err != nil {
		t.Fatal(err)
	}
	if err := runHealthcheck(t, nil, "--addr", addr, "--ready"); err != nil {
		t.Error(err)
	}
	go func() {
		for range lines {
		}
	}()
}

// awaitHealth asks until all is well.
func awaitHealth(t *testing.T, addr, path string) {
	t.Helper()
	for began := time.Now(); ; {
		_, err := askHealth(t.Context(), addr, path)
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			t.Fatal(err)
		}
	}
}

// runHealthcheck runs the command and returns its error.
func runHealthcheck(t *testing.T, out io.Writer, args ...string) error {
	t.Helper()
	root := newRoot()
	root.SetArgs(append([]string{"healthcheck"}, args...))
	if out == nil {
		out = io.Discard
	}
	root.SetOut(out)
	return root.ExecuteContext(t.Context())
}

// serveHealth serves endpoints until the test ends.
func serveHealth(t *testing.T, conns *carry.Limit, h http.Handler) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newEndpoint(ln, conns, h, slog.New(slog.DiscardHandler)).Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ln.Addr().String()
}

// The command asks where the node of the same environment listens, and its error
// has the node's reason; it is no usage error, for Docker wants 0 or 1.
func TestHealthcheck(t *testing.T) {
	for _, name := range []string{"TSNODE_HEALTH", "TS_LOCAL_ADDR_PORT", "TS_HEALTHCHECK_ADDR_PORT", "TS_ENABLE_HEALTH_CHECK", "TSNODE_CONFIG"} {
		t.Setenv(name, "")
	}
	running := &node.Status{State: node.StateRunning, Relayed: true}
	well := serveHealth(t, carry.NewLimit(8, 0, nil), healthMux(nil, running, nil))
	ill := serveHealth(t, carry.NewLimit(8, 0, nil), healthMux(errors.New("disco.Prober does not turn"), &node.Status{State: node.StateRunning}, nil))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	for _, test := range []struct {
		variable, text string
		args           []string
		want           string // of the error; empty: none
	}{
		{"", "", []string{"--addr", well}, ""},
		{"", "", []string{"--addr", well, "--ready"}, ""},
		{"TSNODE_HEALTH", well, nil, ""},
		{"TS_LOCAL_ADDR_PORT", well, nil, ""},
		{"TS_HEALTHCHECK_ADDR_PORT", well, []string{"--ready"}, ""},
		{"TSNODE_HEALTH", well, []string{"--addr", ill}, "/livez says 503: disco.Prober does not turn"},
		{"TSNODE_HEALTH", ill, []string{"--ready"}, "/readyz says 503: waiting for a relay"},
		{"", "", []string{"--addr", nobody}, "nothing listens on " + nobody + ": start the node with --health"},
		{"TSNODE_HEALTH", "nonsense", nil, "name it with --addr"},
	} {
		t.Run(test.variable+strings.Join(test.args, " "), func(t *testing.T) {
			if test.variable != "" {
				t.Setenv(test.variable, test.text)
			}
			var out bytes.Buffer
			err := runHealthcheck(t, &out, test.args...)
			var usage *usageError
			switch {
			case test.want == "" && (err != nil || out.String() != "ok\n"):
				t.Errorf("%v, %q", err, &out)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || errors.As(err, &usage)):
				t.Errorf("%v", err)
			}
		})
	}
}

// A node that does not answer at all is told within the limit.
func TestHealthcheckGivesUp(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = runHealthcheck(t, nil, "--addr", ln.Addr().String(), "--timeout", "50ms")
	if err == nil || !strings.Contains(err.Error(), "no answer from "+ln.Addr().String()) {
		t.Error(err)
	}
}

// Whoever holds as many connections as he gets leaves room for others, is reset
// beyond that, and gets a place again when one of his has ended.
func TestEndpointIsBounded(t *testing.T) {
	const most = 8
	limit := carry.NewLimit(most, most/2, nil)
	addr := serveHealth(t, limit, healthMux(nil, &node.Status{}, nil))
	// ask asks on a connection of its own, which is open until the test ends.
	ask := func(from string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			return nil, err // one that is reset at once fails here already
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return nil, err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return c, err
	}
	var held []net.Conn
	for range most / 2 {
		c, err := ask("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if _, err := ask("127.0.0.1"); err == nil || limit.Refused() == 0 {
		t.Errorf("one too many: %v, %d refused", err, limit.Refused())
	}
	if _, err := ask("127.0.0.2"); err != nil {
		t.Errorf("another source: %v", err)
	}
	held[0].Close()
	for began := time.Now(); ; {
		if _, err := ask("127.0.0.1"); err == nil {
			return
		}
		if time.Since(began) > patience {
			t.Fatal("the place of a connection that has ended is not given again")
		}
	}
}

// An address that only systems with IPv6 have is written such that all understand
// it.
func TestEveryAddress(t *testing.T) {
	for addr, want := range map[string]string{"[::]:9002": ":9002", ":9002": ":9002", "[::1]:9002": "[::1]:9002", "0.0.0.0:1": "0.0.0.0:1"} {
		if got := everyAddress(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
