package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/node"
)

// A start says about five lines, and each is JSON where that is wanted.
func TestStartIsQuiet(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	for _, format := range []string{"text", "json"} {
		p := startProcess(t, withKey(tailnet), append(joins(tailnet, "quiet"), "-L", "0:web:7", "-D", "0", "--log-format", format)...)
		var said []string
		for p.lines.Scan() {
			line := p.lines.Text()
			said = append(said, line)
			var record struct{ Msg string }
			if err := json.Unmarshal([]byte(line), &record); (err == nil) != (format == "json") {
				t.Errorf("%s: %q: %v", format, line, err)
			}
			if strings.Contains(line, "running as quiet") {
				break
			}
		}
		if n := len(said); n < 3 || n > 7 {
			t.Errorf("%s: %d lines:\n%s", format, n, strings.Join(said, "\n"))
		}
		p.Process.Kill()
	}
}

// -W joins standard input and output with one connection, and ends with it, as
// ssh's.
func TestStdio(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	var out, said bytes.Buffer
	root := newRoot()
	root.SetArgs(append(joins(tailnet, "laptop"), "-W", "web:7"))
	root.SetIn(strings.NewReader("to and fro"))
	root.SetOut(&out)
	root.SetErr(&said)
	if err := root.ExecuteContext(t.Context()); err != nil || out.String() != "to and fro" {
		t.Errorf("%q, %v\n%s", &out, err, &said)
	}
}

// A connection of -W that cannot be made says what to do, once.
func TestStdioSaysOnceWhatToDo(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-W", "web:9")...)
	code, rest := p.exit()
	if said := strings.Join(rest, "\n"); code != exitFailed || strings.Count(said, hintFor(node.ErrRefused)) != 1 {
		t.Errorf("exit code %d\n%s", code, said)
	}
}

// --exit-on-forward-failure ends the process when a forward cannot listen; without
// it the others go on.
func TestExitOnForwardFailure(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	args := append(joins(tailnet, "laptop"), "-L", port+":web:7", "-L", "0:web:8")
	p := startProcess(t, withKey(tailnet), args...)
	p.find("cannot listen.*" + port)
	p.find("forwarding .* to web:8")
	p = startProcess(t, withKey(tailnet), append(args, "--exit-on-forward-failure")...)
	if code, rest := p.exit(); code != exitFailed || !strings.Contains(strings.Join(rest, "\n"), port+":web:7") {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// Without its tailnet in time the process ends, and says what it waited for
// (TS_BOOT_TIMEOUT).
func TestStartTimeout(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	tailnet.StopControl()
	p := startProcess(t, append(withKey(tailnet), "TS_BOOT_TIMEOUT=200ms"), joins(tailnet, "late")...)
	if code, rest := p.exit(); code != exitFailed || !strings.Contains(strings.Join(rest, "\n"), "not on the tailnet within 200ms") {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// Proxies that others could use need a word (SVC-168).
func TestOpenProxyIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-D", ":1080"}, {"-D", "0.0.0.0:1080"}, {"--http-proxy", "[::]:1080"}} {
		root := newRoot()
		root.SetArgs(append([]string{"run"}, args...))
		var usage *usageError
		if err := root.ExecuteContext(t.Context()); !errors.As(err, &usage) || !strings.Contains(err.Error(), "--proxy-open") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// A node whose key has expired while it ran ends, so that what runs it takes
// notice, unless it is told to wait (SVC-158).
func TestLoggedOutEnds(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	key := "TS_AUTHKEY=" + tailnet.AuthKey(devnet.KeyOptions{})
	p := startProcess(t, []string{key}, joins(tailnet, "ends")...)
	p.find("running as ends")
	if err := tailnet.ExpireKey("ends"); err != nil {
		t.Fatal(err)
	}
	code, rest := p.exit()
	if said := strings.Join(rest, "\n"); code != exitFailed || !strings.Contains(said, errLoggedOut.Error()) {
		t.Errorf("exit code %d\n%s", code, said)
	}

	key = "TS_AUTHKEY=" + tailnet.AuthKey(devnet.KeyOptions{})
	p = startProcess(t, []string{key}, append(joins(tailnet, "waits"), "--wait-for-login")...)
	p.find("running as waits")
	if err := tailnet.ExpireKey("waits"); err != nil {
		t.Fatal(err)
	}
	p.find("To join the tailnet, visit")
}

// tsnode logout ends the process as well, once it has been answered; one that waits
// says how to log in, where no URL is there to visit, and does so (SVC-158).
func TestLogoutEnds(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	socket := filepath.Join(t.TempDir(), "tsnode.sock")
	start := func(name string, flags ...string) *process {
		key := "TS_AUTHKEY=" + tailnet.AuthKey(devnet.KeyOptions{})
		return startProcess(t, []string{key}, append(append(joins(tailnet, name), "--socket", socket), flags...)...)
	}
	p := start("ends")
	p.find("running as ends")
	if said, err := output(t, "logout", "--socket", socket); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	code, rest := p.exit()
	if said := strings.Join(rest, "\n"); code != exitFailed || !strings.Contains(said, errLoggedOut.Error()) {
		t.Errorf("exit code %d\n%s", code, said)
	}
	awaitGone(t, tailnet, "ends")

	p = start("waits", "--wait-for-login", "--health", "127.0.0.1:0")
	base := p.find(`health and metrics on (\S+)`)
	p.find("running as waits")
	if said, err := output(t, "logout", "--socket", socket); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	p.find("tsnode: logged out")
	p.find("Log in with 'tsnode login'")
	resp, err := http.Get(base + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "waiting for a login: run 'tsnode login'") {
		t.Errorf("/readyz: %q, %v", body, err)
	}
	t.Setenv("TS_AUTHKEY", tailnet.AuthKey(devnet.KeyOptions{}))
	if said, err := output(t, "login", "--socket", socket); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	p.find("running as waits")
}

// A process that nobody watches takes its time after a refused auth key, once it has
// told of it, and a signal cuts that short (SVC-156).
func TestRefusedKeyIsNoHammer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		said := writerFunc(func(p []byte) (int, error) {
			told = append(told, fmt.Sprintf("%v %s", time.Since(began), p))
			return len(p), nil
		})
		f := newForeground(&configuration{}, settings.Defaults(), stdio{err: said})
		f.node = new(node.Node)
		err := f.end(t.Context(), node.ErrBadAuthKey)
		if !errors.Is(err, node.ErrBadAuthKey) || time.Since(began) != authPause {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if f.tellEnd(err); len(told) != 1 || !strings.HasPrefix(told[0], "0s tsnode: "+node.ErrBadAuthKey.Error()) {
			t.Errorf("told %q", told)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began = time.Now()
		if err := f.end(ctx, node.ErrBadAuthKey); err != nil || time.Since(began) != 0 {
			t.Errorf("asked to end: %v after %v", err, time.Since(began))
		}
	})
}

// A writerFunc is a function as an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The endpoints tell orchestrators when the node is alive, ready, and has an address
// (SVC-159, SVC-171).
func TestHealth(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "healthy"), "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0")...)
	base := p.find(`health and metrics on (\S+)`)
	p.find("running as healthy")
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for path, want := range map[string]string{"/livez": "ok", "/healthz": "ok", "/metrics": "tailscaled_home_derp_region_id"} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	for began := time.Now(); ; {
		code, body := get("/readyz")
		if code == http.StatusOK {
			break
		}
		if !strings.Contains(body, "waiting for a relay") || time.Since(began) > patience {
			t.Fatalf("/readyz: %d %q", code, body)
		}
	}
}

// A bug report has what helps to find a fault, and no secret.
func TestBugReportHasNoSecret(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "tsnode.sock"), filepath.Join(dir, "report.txt")
	key := tailnet.AuthKey(devnet.KeyOptions{})
	state := filepath.Join(dir, "state")
	args := append(joins(tailnet, "sick"), "--socket", socket, "--state-dir", state, "-D", "0", "--proxy-auth", "user:hushhush", "-L", "0:web:7", "-v")
	p := startProcess(t, []string{"TS_AUTHKEY=" + key}, args...)
	p.find("running as sick")
	go io.Copy(io.Discard, p.lines)
	root := newRoot()
	root.SetArgs([]string{"bugreport", "--socket", socket, "--file", file})
	root.SetOut(io.Discard)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := readText(t, file)
	for _, want := range []string{"hostname = sick   (--hostname)", "auth-key is not shown   (TS_AUTHKEY)", "-L localhost:0:web:7", "BackendState", "running as sick", "goroutine ", "tailscaled_home_derp_region_id"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, secret := range append(privateKeys(t, filepath.Join(state, "tailscaled.state")), key, "hushhush", "privkey:") {
		if strings.Contains(text, secret) {
			t.Errorf("the report has the secret %.12s…", secret)
		}
	}
	if err := root.ExecuteContext(t.Context()); err == nil {
		t.Error("a report is written over another")
	}
}
