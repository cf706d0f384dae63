//go:build unix

package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
)

// What cannot be understood of -L, -R, -D and -W ends the command before it does
// anything, as ssh's "Bad … specification": with 2 where ssh has 255, and what is
// wanted.
func TestBadForwardIsUsage(t *testing.T) {
	for _, test := range []struct{ flag, text, want string }{
		{"-L", "8080", "want [bind:]port:host:hostport"}, {"-L", "8080:web", "want [bind:]port:host:hostport"}, {"-L", "x:web:80", `"x" is not a port`},
		{"-L", "8080:web:0", "is not a port"}, {"-L", "65536:web:80", "is not a port"}, {"-R", "80", "want [bind:]port:host:hostport"},
		{"-R", "[::1:80:web:80", "brackets do not match"}, {"-D", "x", "is not a port"}, {"-D", "1:2:3", "want [bind:]port"},
		{"-W", "web", "want host:port"}, {"-W", "web:0", "want a port number"},
	} {
		p := startProcess(t, nil, "run", test.flag, test.text)
		if code, rest := p.exit(); code != exitUsage || !strings.Contains(strings.Join(rest, "\n"), test.want) {
			t.Errorf("%s %s: exit code %d\n%s", test.flag, test.text, code, strings.Join(rest, "\n"))
		}
	}
}

// -W ends with 1 and says why when there is no connection, and forwards nothing else
// (ssh(1): -W implies ClearAllForwardings and ExitOnForwardFailure).
func TestStdioAsSSH(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-W", "web:8")...)
	if code, rest := p.exit(); code != exitFailed || !strings.Contains(strings.Join(rest, "\n"), "web:8") || !strings.Contains(strings.Join(rest, "\n"), "refused") {
		t.Errorf("nobody listens: exit code %d\n%s", code, strings.Join(rest, "\n"))
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	var out, said bytes.Buffer
	root := newRoot()
	root.SetArgs(append(joins(tailnet, "laptop"), "-W", "web:7", "-L", port+":web:7", "-D", "0", "--exit-on-forward-failure"))
	root.SetIn(strings.NewReader("to and fro"))
	root.SetOut(&out)
	root.SetErr(&said)
	if err := root.ExecuteContext(t.Context()); err != nil || out.String() != "to and fro" {
		t.Errorf("%q, %v\n%s", &out, err, &said)
	}
	if text := said.String(); !strings.Contains(text, "-W forwards nothing else") || strings.Contains(text, "proxy on") || strings.Contains(text, "cannot listen") {
		t.Errorf("said\n%s", text)
	}
}

// --exit-on-forward-failure is about listening: that a target cannot be reached ends
// one connection, not the process (ssh_config(5), ExitOnForwardFailure).
func TestUnreachableTargetIsNoForwardFailure(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-L", "0:web:8", "-L", "0:web:7", "-R", "9:127.0.0.1:1", "--exit-on-forward-failure", "--drain", "100ms")...)
	refused := p.find(`forwarding (\S+) to web:8`)
	works := p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")
	dialEcho(t, refused).ends()
	dialEcho(t, works).works()
	p.Process.Signal(syscall.SIGTERM)
	if code, rest := p.exit(); code != 0 {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// -R on an address of the node listens as soon as the node knows its addresses, also
// with --exit-on-forward-failure; one on an address that the node does not have ends
// it.
func TestRemoteOnOwnAddress(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	dir := t.TempDir()
	args := append(joins(tailnet, "web"), "--state-dir", dir, "--exit-on-forward-failure")
	p := startProcess(t, withKey(tailnet), args...)
	ip := p.find(`running as \S+ (\S+) `)
	p.Process.Signal(syscall.SIGTERM)
	if code, rest := p.exit(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}

	p = startProcess(t, withKey(tailnet), append(args, "-R", ip+":7:"+echoServer(t))...)
	if addr := p.find(`forwarding (\S+) to`); addr != ip+":7" {
		t.Errorf("listens on %s, want %s:7", addr, ip)
	}
	go io.Copy(io.Discard, p.lines)
	laptop := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-L", "0:"+ip+":7")...)
	addr := laptop.find(`forwarding (\S+) to`)
	laptop.find("running as laptop")
	dialEcho(t, addr).works()
	p.Process.Kill()

	p = startProcess(t, withKey(tailnet), append(joins(tailnet, "other"), "-R", "100.127.255.1:7:127.0.0.1:1", "--exit-on-forward-failure")...)
	if code, rest := p.exit(); code != exitFailed || !strings.Contains(strings.Join(rest, "\n"), "100.127.255.1 is not an address of this node") {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// A password on the command line is told, for others see it, too.
func TestPasswordOnCommandLine(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	users := writeFile(t, "users", "user:hush\n")
	for _, test := range []struct {
		environ []string
		args    []string
		want    bool
	}{
		{nil, []string{"--proxy-auth", "user:hush"}, true},
		{nil, []string{"--proxy-auth", "file:" + users}, false},
		{[]string{"TSNODE_PROXY_AUTH=user:hush"}, nil, false},
	} {
		p := startProcess(t, append(withKey(tailnet), test.environ...), append(append(joins(tailnet, "laptop"), "-D", "0"), test.args...)...)
		var said []string
		for p.lines.Scan() && !strings.Contains(p.lines.Text(), "running as") {
			said = append(said, p.lines.Text())
		}
		p.Process.Kill()
		if text := strings.Join(said, "\n"); strings.Contains(text, "a password on the command line is visible") != test.want || strings.Contains(text, "hush") {
			t.Errorf("%q %q:\n%s", test.environ, test.args, text)
		}
	}
}
