package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tsnode": func() { os.Exit(run(os.Args[1:])) }})
}

// One script for each feature of the command.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// command runs the command line in this process until the test ends, and
// returns what it writes to standard error.
func command(t *testing.T, args ...string) *reading {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	root := newRoot()
	root.SetArgs(args)
	root.SetErr(in)
	root.SetIn(strings.NewReader(""))
	done := make(chan error, 1)
	go func() {
		err := root.ExecuteContext(ctx)
		in.Close()
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		go io.Copy(io.Discard, out)
		if err := <-done; err != nil {
			t.Errorf("%v: %v", args, err)
		}
	})
	return newReading(out)
}

// A reading is of what a command writes, line by line.
type reading struct {
	*bufio.Scanner
	from io.ReadCloser
}

func newReading(from io.ReadCloser) *reading { return &reading{bufio.NewScanner(from), from} }

// Read reads what is left, to keep the writer from waiting.
func (s *reading) Read(p []byte) (int, error) {
	if !s.Scan() {
		return 0, io.EOF
	}
	return copy(p, s.Bytes()), nil
}

// find reads lines until one matches, and returns the match's last group; what
// comes before is read over.
func find(t *testing.T, lines *reading, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	defer time.AfterFunc(patience, func() { lines.from.Close() }).Stop()
	for lines.Scan() {
		if m := re.FindStringSubmatch(lines.Text()); m != nil {
			return m[len(m)-1]
		}
	}
	t.Fatalf("no line matches %q, or none within %v", pattern, patience)
	return ""
}

// A port is forwarded from one machine over the tailnet to another.
func TestRunForwardsBothWays(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	keyFile := filepath.Join(t.TempDir(), "key")
	key := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "backend got "+r.URL.Path)
	}))
	defer backend.Close()
	common := []string{"run", "--ephemeral", "--login-server", tailnet.URL(), "--auth-key", "file:" + keyFile}
	_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	web := command(t, append(common, "--hostname", "web", "-R", "80:127.0.0.1:"+port)...)
	find(t, web, "running as (web.tailnet.test)")
	go io.Copy(io.Discard, web)
	laptop := command(t, append(common, "--hostname", "laptop", "-L", "0:web:80")...)
	addr := find(t, laptop, `forwarding (\S+) to web:80`)
	find(t, laptop, "running as (laptop)")
	go io.Copy(io.Discard, laptop)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Get("http://" + addr + "/path")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "backend got /path" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestReadAuthKey(t *testing.T) {
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "key"), filepath.Join(dir, "empty")
	for name, text := range map[string]string{file: " secret \n", empty: "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		value, stdin, want string
		warns, ok          bool
	}{
		{"", "", "", false, true},
		{"-", "from stdin\nmore", "from stdin", false, true},
		{"-", "", "", false, false},
		{"file:" + file, "", "secret", false, true},
		{"file:" + empty, "", "", false, false},
		{"file:" + file + ".missing", "", "", false, false},
		{"literal", "", "literal", true, true},
	} {
		var warning strings.Builder
		got, err := readAuthKey(t.Context(), tt.value, strings.NewReader(tt.stdin), &warning)
		if got != tt.want || (err == nil) != tt.ok || (warning.Len() > 0) != tt.warns {
			t.Errorf("%q: got %q, %v, warning %q", tt.value, got, err, warning.String())
		}
		if strings.Contains(warning.String(), "literal") {
			t.Errorf("the warning shows the key: %q", warning.String())
		}
	}
}

// A secret that is longer than any is refused, not cut: a part of a users' file would
// be other users.
func TestLongSecretsAreRefused(t *testing.T) {
	long := writeFile(t, "long", strings.Repeat("x", maxSecret+1))
	users := writeFile(t, "users", strings.Repeat("user:password\n", maxUsers/14+1))
	for name, read := range map[string]func() error{
		"file": func() error { _, err := readAuthKey(t.Context(), "file:"+long, nil, io.Discard); return err },
		"stdin": func() error {
			_, err := readAuthKey(t.Context(), "-", strings.NewReader(strings.Repeat("x", maxSecret+1)), io.Discard)
			return err
		},
		"users": func() error { _, err := passwords("file:" + users); return err },
	} {
		var usage *usageError
		if err := read(); !errors.As(err, &usage) || !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, err := passwords("file:" + writeFile(t, "many", strings.Repeat("user:password\n", maxSecret/14+1)+"last:secret\n")); err != nil || all["last"] != "secret" {
		t.Errorf("many users: the last one has %q, %v", all["last"], err)
	}
}

// What --proxy-auth must not be: nothing, which would let everybody in, and a user
// who can never log in.
func TestPasswords(t *testing.T) {
	for _, bad := range []string{" ", "\n", "user", ":password", "user:", "a+exit=b:password"} {
		var usage *usageError
		if all, err := passwords(bad); !errors.As(err, &usage) {
			t.Errorf("%q: %v, %v", bad, all, err)
		}
	}
	if all, err := passwords("user:pass:word"); err != nil || all["user"] != "pass:word" {
		t.Errorf("%v, %v", all, err)
	}
}

// A signal ends the wait for an auth key that nobody types.
func TestSignalEndsReadingKey(t *testing.T) {
	in, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readAuthKey(ctx, "-", in, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	root := newRoot()
	root.SetArgs([]string{"run", "--auth-key", "-"})
	root.SetIn(in)
	if err := root.ExecuteContext(ctx); err != nil {
		t.Errorf("a process that was told to end: %v", err)
	}
}

func TestHints(t *testing.T) {
	if h := hintFor(&node.DialError{Err: node.ErrRejected}); !strings.Contains(h, "policy") {
		t.Errorf("hint for a rejected dial: %q", h)
	}
	if h := hintFor(errors.New("other")); h != "" {
		t.Errorf("hint for another error: %q", h)
	}
}

// A forward that the policy denies says so in the log, and what to do.
func TestForwardSaysWhatToDo(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{Policy: []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:80"]}]}`)})
	t.Setenv("TS_AUTHKEY", tailnet.AuthKey(devnet.KeyOptions{Reusable: true}))
	common := []string{"run", "--ephemeral", "--login-server", tailnet.URL()}
	web := command(t, append(common, "--hostname", "web")...)
	find(t, web, "running as (web)")
	go io.Copy(io.Discard, web)
	laptop := command(t, append(common, "--hostname", "laptop", "-L", "0:web:81")...)
	addr := find(t, laptop, `forwarding (\S+) to web:81`)
	find(t, laptop, "running as (laptop)")
	c, err := net.Dial("tcp", addr)
	if err == nil {
		defer c.Close()
	}
	find(t, laptop, "rejected by the tailnet's policy.*(ask its administrator)")
	go io.Copy(io.Discard, laptop)
}

func TestQRText(t *testing.T) {
	text := qrText("https://example.org/login/0123456789abcdef")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, l := range lines {
		if n := len([]rune(l)); n != len([]rune(lines[0])) {
			t.Fatalf("lines of %d and %d cells", n, len([]rune(lines[0])))
		}
	}
	if first := strings.Trim(lines[0], "█"); first != "" {
		t.Errorf("the quiet zone holds %q", first)
	}
	if qrText(strings.Repeat("x", 5000)) != "" {
		t.Error("a QR code of 5000 bytes")
	}
}
