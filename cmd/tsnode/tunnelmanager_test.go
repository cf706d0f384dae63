//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host/iface"
	"github.com/seed94491740/tsnode/vpn"
)

// endedBy returns the signal that has ended a process, and -1 for none.
func endedBy(cmd *exec.Cmd) syscall.Signal {
	return cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()
}

// Section 7.3, "Stop unanswered": a tunnel process that does not answer Stop is asked
// to end at once, and one that cannot is killed.
func TestTunnelDoesNotAnswerStop(t *testing.T) {
	for _, answers := range []bool{false, true} {
		within := deadlines{answer: 100 * time.Millisecond, end: time.Hour, kill: 100 * time.Millisecond}
		if answers {
			within.answer = patience
		}
		p := newTunnelProcess(t.Context(), within, "tsnode", "tunnel")
		in, err := p.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		m, err := vpn.Dial(t.Context(), vpn.Pair(out, in), vpn.ManagerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if !answers {
			freeze(t, p.cmd.Process.Pid)
		}
		if err := p.stop(t.Context(), m); (err == nil) != answers {
			t.Errorf("stop: %v, though it answers: %v", err, answers)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := p.wait(); (err == nil) != answers || !answers && endedBy(p.cmd) != syscall.SIGKILL {
			t.Errorf("the process ends with %v, though it answers: %v", err, answers)
		}
	}
}

// freeze stops a child, and returns when it is.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("it has not stopped: %v, %v", status, err)
	}
}

// Section 7.3: SIGTERM comes first, and SIGKILL to a process that goes on.
func TestTunnelTermThenKill(t *testing.T) {
	p := newTunnelProcess(t.Context(), deadlines{end: 0, kill: time.Second}, "sh", "-c", `trap "echo TERM" TERM; echo ready; while :; do read line; done`)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() // what it reads never comes
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	p.end()
	if line, err := lines.ReadString('\n'); line != "TERM\n" {
		t.Errorf("%q, %v in place of what SIGTERM does", line, err)
	}
	if err := p.wait(); err == nil || endedBy(p.cmd) != syscall.SIGKILL {
		t.Errorf("the process ends with %v", err)
	}
}

// The deadlines are those of section 7.3: vpn.Manager.Stop gives the answer 5 s.
func TestTunnelDeadlines(t *testing.T) {
	if endings.end != 5*time.Second || endings.kill != 5*time.Second || endings.answer < 10*time.Second {
		t.Errorf("the deadlines are %+v", endings)
	}
}

// A manager that is interrupted while its tunnel starts ends well, and without a
// word of an error.
func TestTunnelManagerInterrupted(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	tailnet.StopControl()
	cmd := exec.Command("tsnode", "tunnel", "--manager", "--verbose", "--hostname", "laptop", "--ephemeral", "--login-server", tailnet.URL())
	cmd.Env = append(os.Environ(), "TS_AUTHKEY=tskey-auth-any")
	var stderr bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &stderr, patience
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := newReading(out)
	find(t, lines, "^log: ") // the node is about to join
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, lines)
	if err := cmd.Wait(); err != nil || strings.Contains(stderr.String(), "cancel") {
		t.Errorf("ends with %v, and says\n%s", err, stderr.String())
	}
}

// What a person at a front end reads names no flag of a command.
func TestTunnelHints(t *testing.T) {
	for _, h := range tunnelHints {
		if text := tunnelError(fmt.Errorf("start: %w", h.err)).Error(); !strings.HasSuffix(text, h.text) || strings.Contains(text, "--") {
			t.Errorf("%q is told as %q", h.err, text)
		}
	}
	if err := errors.New("other"); tunnelError(err) != err {
		t.Error("a hint where there is none")
	}
}

// Section 7.3, "bad header / version": the process ends with exit code 1, one whose
// flags are wrong with 2, and one that is stopped or left with 0.
func TestTunnelExitCodes(t *testing.T) {
	for _, test := range []struct {
		stdin, says string
		args        []string
		code        int
	}{
		{"GET / HTTP/1.1\n", "header", nil, 1},
		{"codervpn manager 2.0\n", "version", nil, 1},
		{"codervpn tunnel 1.3\n", "header", nil, 1},
		{strings.Repeat("x", 256), "header", nil, 1},
		{"codervpn manager 1.3\n\x00\x00\x00\x00", "frame", nil, 1},
		{"", "--json", []string{"--json"}, 2},
		{"", "header order", []string{"--header", "other"}, 2},
		{"", "grouping", []string{"--manager", "--group", "tags"}, 2},
		{"codervpn manager 1.3\n", "", nil, 0},
		{"codervpn manager 1.3\n\x00\x00\x00\x06\x0a\x02\x08\x03\x2a\x00", "", nil, 0}, // Stop; section 4.7
	} {
		cmd := exec.CommandContext(t.Context(), "tsnode", append([]string{"tunnel"}, test.args...)...)
		cmd.Stdin = strings.NewReader(test.stdin)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("%q, %q: exit code %d, want %d\n%s", test.args, test.stdin, code, test.code, stderr.String())
		}
	}
}

// A tunnel process is given the environment without secrets.
func TestWithoutSecrets(t *testing.T) {
	got := withoutSecrets([]string{"PATH=/bin", "TS_AUTHKEY=a", "TS_AUTH_KEY=b", "TS_CLIENT_SECRET=c", "TS_CLIENT_ID=d", "TS_HOSTNAME=e", "TSNODE_PROXY_AUTH=f"})
	if !slices.Equal(got, []string{"PATH=/bin", "TS_HOSTNAME=e"}) {
		t.Errorf("got %q", got)
	}
}

// A memorySetter keeps what an interface was set up with.
type memorySetter struct{ now iface.Settings }

func (m *memorySetter) Apply(s iface.Settings) error { m.now = s; return nil }
func (m *memorySetter) Close() error                 { m.now = iface.Settings{}; return nil }

// VPN-56, VPN-50: the resolver's program reads what the tunnel asks for, when it has
// changed and when all is undone; when it fails nothing of the request is in force,
// and its words are the answer.
func TestResolverHook(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "resolver")
	text := fmt.Sprintf("#!/bin/sh\n[ -e %[1]s/fail ] && echo no such zone && exit 3\n{ echo \"$1\"; cat; echo; } >>%[1]s/calls\n", dir)
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	called := func() []string {
		text, _ := os.ReadFile(filepath.Join(dir, "calls"))
		return strings.Fields(string(text))
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	set := new(memorySetter)
	d := &managedDevice{file: file, set: set, resolver: hook{program, "tst0"}}
	names := &vpn.DNSSettings{Servers: []netip.Addr{netip.MustParseAddr("100.100.100.100")}, DomainName: "tailnet.test"}
	settings := vpn.NetworkSettings{MTU: 1280, DNS: names}
	ctx := context.Background()
	for range 2 { // the second time nothing has changed
		if err := d.apply(ctx, settings); err != nil {
			t.Fatal(err)
		}
	}
	var heard vpn.DNSSettings
	if got := called(); len(got) != 2 || got[0] != "tst0" || json.Unmarshal([]byte(got[1]), &heard) != nil || heard.DomainName != "tailnet.test" || len(heard.Servers) != 1 {
		t.Errorf("the program was called with %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "fail"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = d.apply(ctx, vpn.NetworkSettings{MTU: 1400, DNS: &vpn.DNSSettings{DomainName: "other.test"}})
	var exited *exec.ExitError
	if !errors.As(err, &exited) || !strings.Contains(err.Error(), "no such zone") || set.now.MTU != 1280 || d.now.DNS != names {
		t.Errorf("a program that fails: %v; in force: %+v, %+v", err, set.now, d.now.DNS)
	}
	if err := os.Remove(filepath.Join(dir, "fail")); err != nil {
		t.Fatal(err)
	}
	if err := d.close(ctx); err != nil || set.now.MTU != 0 {
		t.Errorf("close: %v, %+v", err, set.now)
	}
	if got := called(); !slices.Equal(got[2:], []string{"tst0", "null"}) {
		t.Errorf("at the end the program was called with %q", got[2:])
	}
	if err := (hook{noResolver, "tst0"}).apply(ctx, names); err != nil {
		t.Errorf("no resolver: %v", err)
	}
}
