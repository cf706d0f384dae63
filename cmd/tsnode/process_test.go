package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
)

// patience is how long a test waits for what must come; only a failure takes it.
const patience = 60 * time.Second

// A process is a tsnode of its own.
type process struct {
	*exec.Cmd
	t     *testing.T
	lines *reading // what it writes to standard error
}

// startProcess runs the command line until the test ends.
func startProcess(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	return startCommand(t, "tsnode", environ, args...)
}

// startCommand runs a program until the test ends.
func startCommand(t *testing.T, name string, environ []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), t: t}
	p.Env = append(os.Environ(), environ...)
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = newReading(stderr)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
	})
	return p
}

// find reads lines until one matches, and returns the match's last group.
func (p *process) find(pattern string) string {
	p.t.Helper()
	return find(p.t, p.lines, pattern)
}

// exit returns the exit code, and what was still written to standard error; -1 after
// a signal that ended the process.
func (p *process) exit() (code int, rest []string) {
	p.t.Helper()
	for p.lines.Scan() {
		rest = append(rest, p.lines.Text())
	}
	err := p.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		p.t.Fatal(err)
	}
	return p.ProcessState.ExitCode(), rest
}

// joins returns the flags of a node of the tailnet.
func joins(tailnet *devnet.Net, name string) []string {
	return []string{"run", "--login-server", tailnet.URL(), "--hostname", name}
}

// withKey returns an environment with an auth key of the tailnet.
func withKey(tailnet *devnet.Net) []string {
	return []string{"TS_AUTHKEY=" + tailnet.AuthKey(devnet.KeyOptions{Reusable: true})}
}

// echoServer answers each connection with what it says until the test ends.
func echoServer(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

// echoNode runs a node in this process whose port 7 answers with what it is told.
func echoNode(t *testing.T, tailnet *devnet.Net, name string) {
	t.Helper()
	t.Setenv("TS_AUTHKEY", tailnet.AuthKey(devnet.KeyOptions{Reusable: true}))
	lines := command(t, append(joins(tailnet, name), "--drain", "100ms", "-R", "7:"+echoServer(t))...)
	find(t, lines, "running as")
	go io.Copy(io.Discard, lines)
}

// An echo is a connection to an echo server.
type echo struct {
	net.Conn
	t *testing.T
}

func dialEcho(t *testing.T, addr string) *echo {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &echo{c, t}
}

// works says something and waits for the answer.
func (e *echo) works() {
	e.t.Helper()
	const word = "hello"
	got := make([]byte, len(word))
	if _, err := io.WriteString(e, word); err != nil {
		e.t.Fatal(err)
	}
	if _, err := io.ReadFull(e, got); err != nil || string(got) != word {
		e.t.Fatalf("echo %q, %v", got, err)
	}
}

// ends waits until the other side has closed the connection.
func (e *echo) ends() {
	e.t.Helper()
	if n, err := e.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		e.t.Fatalf("the connection is still open: %d bytes, %v", n, err)
	}
}

// awaitRefused waits until nothing listens on addr any more.
func awaitRefused(t *testing.T, addr string) {
	t.Helper()
	for began := time.Now(); time.Since(began) < patience; {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
	}
	t.Fatalf("%s still accepts connections", addr)
}

// awaitGone waits until the tailnet has no node of the name.
func awaitGone(t *testing.T, tailnet *devnet.Net, name string) {
	t.Helper()
	gone := func(all []devnet.NodeInfo) bool {
		return !slices.ContainsFunc(all, func(n devnet.NodeInfo) bool { return n.Name == name })
	}
	if err := tailnet.Await(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
}

// writeFile writes a file of the test, and returns its path.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(t.TempDir(), path)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var privateKey = regexp.MustCompile(`privkey:[0-9a-f]{64}`)

// privateKeys returns the private keys in a state file: of the machine, then of the
// node.
func privateKeys(t *testing.T, file string) (keys []string) {
	t.Helper()
	var values map[string]string
	if err := json.Unmarshal([]byte(readText(t, file)), &values); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	machine, err := base64.StdEncoding.DecodeString(values["_machinekey"])
	if err != nil {
		t.Fatal(err)
	}
	keys = append(keys, privateKey.FindAllString(string(machine), -1)...)
	current, err := base64.StdEncoding.DecodeString(values["_current-profile"])
	if err != nil {
		t.Fatal(err)
	}
	profile, err := base64.StdEncoding.DecodeString(values[string(current)])
	if err != nil {
		t.Fatal(err)
	}
	var prefs struct {
		Config struct{ PrivateNodeKey string }
	}
	if len(profile) > 0 {
		if err := json.Unmarshal(profile, &prefs); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, prefs.Config.PrivateNodeKey)
	}
	return keys
}

func readText(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
