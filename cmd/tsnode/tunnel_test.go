//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/vpn"
)

// A tunnelled is a tunnel in a process of its own, with a socket as descriptor 3.
type tunnelled struct {
	*vpn.Manager
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// newTunnelled starts a tunnel process and greets it.
func newTunnelled(t *testing.T, config vpn.ManagerConfig, args ...string) *tunnelled {
	t.Helper()
	return newTunnelledWith(t, nil, config, args...)
}

// newTunnelledWith gives the process files as descriptors from 4 on.
func newTunnelledWith(t *testing.T, files []*os.File, config vpn.ManagerConfig, args ...string) *tunnelled {
	t.Helper()
	own, theirs := socketPair(t)
	p := &tunnelled{cmd: exec.Command("tsnode", append([]string{"tunnel", "--fd", "3"}, args...)...)}
	p.cmd.ExtraFiles, p.cmd.Stderr = append([]*os.File{theirs}, files...), &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	m, err := vpn.Dial(t.Context(), own, config)
	if err != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		t.Fatalf("%v\n%s", err, p.stderr.String())
	}
	p.Manager = m
	return p
}

// socketPair returns a stream and the file of its other end.
func socketPair(t *testing.T) (vpn.Stream, *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	f := os.NewFile(uintptr(fds[0]), "own")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "theirs")
}

// ended closes the manager, and returns how the process has ended.
func (p *tunnelled) ended(t *testing.T) error {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	err := p.cmd.Wait()
	if p.stderr.Len() > 0 {
		t.Logf("the process says:\n%s", p.stderr.String())
	}
	return err
}

// VT-12: a tunnel process joins a tailnet with the manager's token, tells of its
// peers, and ends after Stop.
func TestTunnelProcess(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	joinTailnet(t, tailnet, "web")
	p := newTunnelled(t, vpn.ManagerConfig{}, "--hostname", "laptop", "--ephemeral")
	bad := vpn.StartOptions{ControlURL: tailnet.URL(), Token: "tskey-auth-wrong"}
	if err := p.Start(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "Make a new auth key") {
		t.Errorf("start with a bad token: %v", err)
	}
	if err := p.Start(t.Context(), vpn.StartOptions{ControlURL: tailnet.URL()}); err == nil || !strings.Contains(err.Error(), "http") {
		t.Errorf("start without a token: %v, want the URL of the login", err)
	}
	if err := p.Start(t.Context(), vpn.StartOptions{ControlURL: tailnet.URL(), Descriptor: 99}); err == nil || !strings.Contains(err.Error(), "descriptor 99") {
		t.Errorf("start with a dead descriptor: %v", err)
	}
	good := vpn.StartOptions{ControlURL: tailnet.URL(), Token: tailnet.AuthKey(devnet.KeyOptions{})}
	if err := p.Start(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	table, err := p.Refresh(t.Context())
	if err != nil || len(table.Agents) != 1 || table.Agents[0].Name != "web" || len(table.Workspaces) != 1 || table.Workspaces[0].Status != vpn.StatusRunning {
		t.Errorf("peers %+v, %v", table, err)
	}
	if err := p.Wake(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.ended(t); err != nil {
		t.Error(err)
	}
}

// joinTailnet runs a node in this process until the test ends.
func joinTailnet(t *testing.T, tailnet *devnet.Net, name string) {
	t.Helper()
	t.Setenv("TS_AUTHKEY", tailnet.AuthKey(devnet.KeyOptions{Reusable: true}))
	lines := command(t, "run", "--ephemeral", "--login-server", tailnet.URL(), "--hostname", name)
	find(t, lines, "running as ("+name+")")
	go io.Copy(io.Discard, lines)
	t.Setenv("TS_AUTHKEY", "")
}

// VT-12, VPN-37: a manager that is gone ends the process, which closes its node; a
// tunnel that is killed is told by the end of the stream.
func TestTunnelProcessVanishes(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	start := vpn.StartOptions{ControlURL: tailnet.URL(), Token: tailnet.AuthKey(devnet.KeyOptions{Reusable: true, Ephemeral: true})}
	p := newTunnelled(t, vpn.ManagerConfig{}, "--hostname", "left")
	if err := p.Start(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	if err := p.ended(t); err != nil {
		t.Errorf("the manager is gone: %v", err)
	}
	p = newTunnelled(t, vpn.ManagerConfig{}, "--hostname", "killed")
	if err := p.Start(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Kill()
	<-p.Done()
	if err := p.Start(t.Context(), start); err == nil {
		t.Error("a tunnel that is dead has started")
	}
	p.ended(t)
}

// VPN-22: the headers of Start are in the requests to the control server.
func TestTunnelHeaders(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	u, err := url.Parse(tailnet.URL())
	if err != nil {
		t.Fatal(err)
	}
	var without, with atomic.Int32
	proxy := httputil.NewSingleHostReverseProxy(u)
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Gate") != "open" {
			without.Add(1)
		} else {
			with.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	defer gate.Close()
	p := newTunnelled(t, vpn.ManagerConfig{}, "--hostname", "laptop")
	start := vpn.StartOptions{
		ControlURL: gate.URL, Token: tailnet.AuthKey(devnet.KeyOptions{Ephemeral: true}), Headers: http.Header{"X-Gate": {"open"}},
	}
	if err := p.Start(t.Context(), start); err != nil {
		t.Error(err)
	}
	if with.Load() < 2 || without.Load() != 0 { // its key, and the upgrade
		t.Errorf("%d requests with the header, %d without", with.Load(), without.Load())
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	p.ended(t)
}

// The command as manager starts a tunnel process, and prints what it says.
func TestTunnelManager(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	joinTailnet(t, tailnet, "web")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "tsnode", "tunnel", "--manager", "--json", "--hostname", "laptop", "--ephemeral", "--group=node", "--login-server", tailnet.URL(), "--auth-key", "-")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stdin = strings.NewReader(tailnet.AuthKey(devnet.KeyOptions{}) + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var started, seen bool
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var line struct {
			Started *vpn.Version
			Update  *struct {
				Workspaces, Agents []struct{ Name, Status string }
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Errorf("%s: %v", lines.Text(), err)
		}
		started = started || line.Started != nil
		seen = seen || line.Update != nil && line.Update.Agents[0].Name == "web" && line.Update.Workspaces[0].Status == "running"
		if started && seen {
			cancel()
		}
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 0 || !started || !seen {
		t.Errorf("%v, started %v, seen %v\n%s", err, started, seen, stderr.String())
	}
}
