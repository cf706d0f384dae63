package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/vpn"
)

// openFiles returns what the descriptors of a process lead to, and how many do;
// "self" is this process.
func openFiles(t *testing.T, process any) map[string]int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%v/fd", process)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]int)
	for _, e := range all {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // not the one that reads dir
			files[to]++
		}
	}
	return files
}

// leavesNone waits until this process has no descriptor that it had not before.
func leavesNone(t *testing.T, before map[string]int) {
	t.Helper()
	var left []string
	becomes(t, func() bool {
		left = nil
		for to, n := range openFiles(t, "self") {
			if n > before[to] {
				left = append(left, to)
			}
		}
		return len(left) == 0
	}, func() string { return fmt.Sprintf("left open: %q", left) })
}

// VT-12, VPN-41: a tunnel process uses duplicates of the device that it is given,
// also by a Start that fails, and none is left in the manager's process however the
// tunnel ends. It is in the manager's namespaces.
func TestTunnelProcessDescriptors(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	start := vpn.StartOptions{ControlURL: tailnet.URL(), Token: tailnet.AuthKey(devnet.KeyOptions{Reusable: true, Ephemeral: true}), Descriptor: 4}
	for name, end := range map[string]func(*tunnelled){
		"stopped": func(p *tunnelled) {
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"left":   func(*tunnelled) {},
		"killed": func(p *tunnelled) { p.cmd.Process.Kill(); <-p.Done() },
	} {
		before := openFiles(t, "self")
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		device, theirs := os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "theirs")
		p := newTunnelledWith(t, []*os.File{theirs}, vpn.ManagerConfig{
			Apply: func(context.Context, vpn.NetworkSettings) error { return nil },
		}, "--hostname", name)
		theirs.Close()
		given, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/4", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		bad := start
		bad.Token = "tskey-auth-wrong"
		if err := p.Start(t.Context(), bad); err == nil {
			t.Errorf("%s: started with a bad token", name)
		}
		if n := openFiles(t, p.cmd.Process.Pid)[given]; n != 1 {
			t.Errorf("%s: %d descriptors of the device after a Start that failed", name, n)
		}
		if err := p.Start(t.Context(), start); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := openFiles(t, p.cmd.Process.Pid)[given]; n < 2 {
			t.Errorf("%s: %d descriptors of the device, want the manager's and our own", name, n)
		}
		for _, kind := range []string{"net", "mnt", "user"} {
			own, _ := os.Readlink("/proc/self/ns/" + kind)
			theirs, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.cmd.Process.Pid, kind))
			if own == "" || own != theirs {
				t.Errorf("%s: %s namespace %q, ours is %q", name, kind, theirs, own)
			}
		}
		end(p)
		p.ended(t)
		device.Close()
		leavesNone(t, before)
	}
}

// childrenOf returns the processes that a process has started, of which there is one
// at least.
func childrenOf(t *testing.T, pid int) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		text, _ := os.ReadFile(path)
		all = append(all, strings.Fields(string(text))...)
	}
	if len(all) == 0 {
		t.Errorf("process %d has started none", pid)
	}
	return all
}

// VPN-23, VT-12, VPN-37: a tunnel process has the token from its manager alone, and a
// manager that is killed takes it along.
func TestTunnelManagerKilled(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	cmd := exec.Command("tsnode", "tunnel", "--manager", "--hostname", "laptop", "--ephemeral", "--login-server", tailnet.URL())
	cmd.Env = append(os.Environ(), "TS_AUTHKEY="+tailnet.AuthKey(devnet.KeyOptions{}))
	var stderr bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &stderr, patience
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	up := false
	for !up && lines.Scan() {
		up = strings.Contains(lines.Text(), "the tunnel is up")
	}
	for _, child := range childrenOf(t, cmd.Process.Pid) {
		if environ, err := os.ReadFile("/proc/" + child + "/environ"); err != nil || bytes.Contains(environ, []byte("TS_AUTHKEY")) {
			t.Errorf("the tunnel process has the auth key in its environment, or %v", err)
		}
	}
	cmd.Process.Kill()
	// The tunnel process has the same standard error: while it lives, Wait waits.
	var killed *exec.ExitError
	if err := cmd.Wait(); !up || !errors.As(err, &killed) {
		t.Errorf("up %v, then %v\n%s", up, err, stderr.String())
	}
	online := func() []string {
		names := make(map[string]bool)
		for _, n := range tailnet.Nodes() {
			if n.Online {
				names[n.Name] = true
			}
		}
		return slices.Sorted(maps.Keys(names))
	}
	becomes(t, func() bool { return len(online()) == 0 }, func() string { return fmt.Sprintf("online: %q", online()) })
}
