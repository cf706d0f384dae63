package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed94491740/tsnode/devnet"
)

// Ports of the far host of TestForwardsAsSSH.
const (
	farEcho  = 7 // echoes what it gets
	farBlank = 9 // refuses
)

// A forwarder is ssh or tsnode run, which forward to the same far host.
type forwarder struct {
	name    string
	program string
	args    []string // before the forwards; the destination of ssh comes last
	must    []string // what makes it end when a forward cannot listen
	failure int      // exit code of that
	end     os.Signal
}

// forwarders returns ssh and ours.
func forwarders(t *testing.T) (all []forwarder) {
	t.Helper()
	ours, err := ourProgram()
	if err != nil {
		t.Fatal(err)
	}
	tailnet := startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true, Ephemeral: true})
	far := ourNode(t, tailnet.URL(), "far", k)
	ln, err := far.Listen("tcp", fmt.Sprint(":", farEcho))
	if err != nil {
		t.Fatal(err)
	}
	go serveEchoes(ln)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte(k), 0o600); err != nil {
		t.Fatal(err)
	}
	return []forwarder{
		{"ssh", "ssh", sshArgs(t, dir), []string{"-o", "ExitOnForwardFailure=yes"}, 255, os.Kill}, // which now and then misses an interrupt
		{"tsnode", ours, []string{"run", "--login-server", tailnet.URL(), "--auth-key", "file:" + filepath.Join(dir, "key"), "--hostname", "near", "--drain", "1s"},
			[]string{"--exit-on-forward-failure"}, 1, os.Interrupt},
	}
}

// sshArgs starts an SSH server whose only host is far, and returns what makes ssh
// log in there.
func sshArgs(t *testing.T, dir string) []string {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go serveForwards(server, newSSHKey(t, ""), newSSHKey(t, filepath.Join(dir, "id")).PublicKey())
	_, port, _ := net.SplitHostPort(server.Addr().String())
	return []string{"-F", "none", "-N", "-p", port, "-i", filepath.Join(dir, "id"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "hosts"), "someone@127.0.0.1"}
}

// serveForwards serves SSH to who has a key: channels to the echo of the far host
// (RFC 4254 section 7.2); others are refused.
func serveForwards(ln net.Listener, host ssh.Signer, user ssh.PublicKey) {
	config := sshConfig(host, user)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, channels, requests, err := ssh.NewServerConn(c, config)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			for wanted := range channels {
				go serveForward(wanted)
			}
		}()
	}
}

func serveForward(wanted ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if wanted.ChannelType() != "direct-tcpip" || ssh.Unmarshal(wanted.ExtraData(), &to) != nil || to.Port != farEcho {
		wanted.Reject(ssh.ConnectionFailed, "connection refused")
		return
	}
	channel, requests, err := wanted.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	defer channel.Close()
	all, _ := io.ReadAll(channel)
	channel.Write(all)
	channel.CloseWrite()
}

// A forwarding is a forwarder that runs.
type forwarding struct {
	cmd    *exec.Cmd
	said   bytes.Buffer
	ended  chan struct{}
	exited error
}

// start runs the forwarder with flags, until the test ends.
func (f *forwarder) start(t *testing.T, flags ...string) *forwarding {
	t.Helper()
	args := slices.Concat(f.args, flags)
	if last := len(f.args) - 1; f.name == "ssh" {
		args = slices.Concat(f.args[:last], flags, f.args[last:])
	}
	r := &forwarding{cmd: exec.Command(f.program, args...), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		r.exited = r.cmd.Wait()
	}()
	t.Cleanup(func() { r.stop(t, f.end) })
	return r
}

// stop has it end by a signal.
func (r *forwarding) stop(t *testing.T, by os.Signal) {
	t.Helper()
	r.cmd.Process.Signal(by)
	select {
	case <-r.ended:
	case <-time.After(upTimeout):
		t.Errorf("%s goes on after %v:\n%s", r.cmd.Path, by, r.said.String())
		r.cmd.Process.Kill()
		<-r.ended
	}
}

// exit waits until it ends by itself, and returns its exit code.
func (r *forwarding) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(upTimeout):
		t.Error("it does not end")
		r.stop(t, os.Kill)
	}
	return r.cmd.ProcessState.ExitCode()
}

// await waits until a socket of this machine accepts.
func (r *forwarding) await(t *testing.T, network, address string) {
	t.Helper()
	eventually(t, upTimeout, func(context.Context) error {
		select {
		case <-r.ended:
			t.Fatalf("%v: %s", r.exited, r.said.String())
		default:
		}
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// freePort returns a port that is free on all addresses.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// echoed sends text, half-closes, and returns what comes until the end.
func echoed(network, address, text string) (string, error) {
	c, err := net.Dial(network, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(upTimeout))
	io.WriteString(c, text)
	c.(interface{ CloseWrite() error }).CloseWrite()
	got, err := io.ReadAll(c)
	return string(got), err
}

// -L and -D listen where ssh's do, carry what ssh's carry, half-close too, and end
// a connection whose target refuses. doc/forwards.md lists what is different.
func TestForwardsAsSSH(t *testing.T) {
	binds := []struct {
		bind            string // before the port
		own, other, six bool   // whether it accepts at 127.0.0.1, 127.0.0.2 and ::1
	}{
		{"127.0.0.1:", true, false, false},
		{"127.0.0.2:", false, true, false},
		{"[::1]:", false, false, true},
		{"*:", true, true, true},
		{":", true, true, true},
		{"0.0.0.0:", true, true, false},
	}
	for _, f := range forwarders(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			var flags, ports []string
			for _, b := range binds {
				ports = append(ports, freePort(t))
				flags = append(flags, "-L", fmt.Sprintf("%s%s:far:%d", b.bind, ports[len(ports)-1], farEcho))
			}
			alone, blank, socks, socks2, path := freePort(t), freePort(t), freePort(t), freePort(t), filepath.Join(t.TempDir(), "s")
			unix := map[string]string{"ssh": path, "tsnode": "unix:" + path}[f.name]
			flags = append(flags, "-L", fmt.Sprintf("%s:far:%d", alone, farEcho), "-L", fmt.Sprintf("%s:far:%d", blank, farBlank),
				"-L", fmt.Sprintf("%s:far:%d", unix, farEcho), "-D", socks, "-D", "127.0.0.1:"+socks2)
			r := f.start(t, flags...)
			for i, b := range binds {
				for host, accepts := range map[string]bool{"127.0.0.1": b.own, "127.0.0.2": b.other, "::1": b.six} {
					at := net.JoinHostPort(host, ports[i])
					if accepts {
						r.await(t, "tcp", at)
					} else if c, err := net.Dial("tcp", at); err == nil {
						c.Close()
						t.Errorf("-L %sPORT: it listens on %s", b.bind, host)
					}
				}
			}
			for _, at := range [][2]string{{"tcp", "127.0.0.1:" + alone}, {"unix", path}} {
				r.await(t, at[0], at[1])
				if got, err := echoed(at[0], at[1], "over and back"); err != nil || got != "over and back" {
					t.Errorf("%v echoes %q, %v", at, got, err)
				}
			}
			if c, err := net.Dial("tcp", "127.0.0.2:"+alone); err == nil {
				c.Close()
				t.Error("-L PORT: it listens on more than loopback")
			}
			r.await(t, "tcp", "127.0.0.1:"+blank)
			if got, _ := echoed("tcp", "127.0.0.1:"+blank, "x"); got != "" {
				t.Errorf("a target that refuses sends %q", got)
			}
			for _, port := range []string{socks, socks2} {
				r.await(t, "tcp", "127.0.0.1:"+port)
				testSOCKS(t, "127.0.0.1:"+port)
			}
		})
	}
}

// testSOCKS connects through a SOCKS5 proxy to what answers and what does not.
func testSOCKS(t *testing.T, proxy string) {
	t.Helper()
	for port, want := range map[byte]string{farEcho: "over and back", farBlank: ""} {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(upTimeout))
		io.WriteString(c, "\x05\x01\x00\x05\x01\x00\x03\x03far\x00"+string([]byte{port}))
		b := make([]byte, 4) // method, beginning of the reply; RFC 1928 section 6
		if _, err := io.ReadFull(c, b); want != "" && (err != nil || b[3] != 0) || want == "" && err == nil && b[3] == 0 {
			t.Errorf("CONNECT to port %d: reply %d, %v", port, b[3], err)
		}
		io.WriteString(c, "over and back")
		c.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(c)
		if !strings.HasSuffix(string(all), want) {
			t.Errorf("port %d sends %q", port, all)
		}
		c.Close()
	}
}

// A forward whose port is taken ends the process when it was told so, with an exit
// code of its own; else the others go on. A forward that cannot be read is refused
// before anything is done.
func TestForwardFailuresAsSSH(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	fails := fmt.Sprintf("127.0.0.1:%s:far:%d", port, farEcho)
	for _, f := range forwarders(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if got := f.start(t, slices.Concat(f.must, []string{"-L", fails})...).exit(t); got != f.failure {
				t.Errorf("it must listen and cannot: exit code %d, want %d", got, f.failure)
			}
			if got := f.start(t, slices.Concat(f.must, []string{"-D", "127.0.0.1:" + port})...).exit(t); got != f.failure {
				t.Errorf("-D must listen and cannot: exit code %d, want %d", got, f.failure)
			}
			other := freePort(t)
			r := f.start(t, "-L", fails, "-L", fmt.Sprintf("127.0.0.1:%s:far:%d", other, farEcho))
			r.await(t, "tcp", "127.0.0.1:"+other)
			if got, err := echoed("tcp", "127.0.0.1:"+other, "beside it"); err != nil || got != "beside it" {
				t.Errorf("the other forward echoes %q, %v", got, err)
			}
			usage, bad := 2, []string{"what", "1:2", "70000:far:7", "1:far:70000", ""}
			if f.name == "ssh" {
				usage, bad = 255, append(bad, "0:far:7") // of ours, 0 is a free port
			}
			for _, bad := range bad {
				if got := f.start(t, "-L", bad).exit(t); got != usage {
					t.Errorf("-L %q: exit code %d, want %d", bad, got, usage)
				}
			}
		})
	}
}

// -W carries standard input and output, and ends with the connection; with the end
// of input it goes on until the answer is there. One that is refused has an exit
// code of its own.
func TestStdioAsSSH(t *testing.T) {
	for _, f := range forwarders(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			run := func(port int) (string, int) {
				args := append([]string{"-W", fmt.Sprintf("far:%d", port)}, f.args...)
				if f.name == "tsnode" {
					args = slices.Concat(f.args, args[:2])
				} else {
					args = slices.DeleteFunc(args, func(s string) bool { return s == "-N" })
				}
				ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
				defer cancel()
				cmd := exec.CommandContext(ctx, f.program, args...)
				cmd.Stdin = strings.NewReader("over and back")
				out, err := cmd.Output()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				return string(out), cmd.ProcessState.ExitCode()
			}
			if out, code := run(farEcho); out != "over and back" || code != 0 {
				t.Errorf("got %q, exit code %d", out, code)
			}
			if out, code := run(farBlank); out != "" || code != f.failure {
				t.Errorf("refused: got %q, exit code %d, want %d", out, code, f.failure)
			}
		})
	}
}
