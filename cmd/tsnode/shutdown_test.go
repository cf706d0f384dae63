//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
)

// SIGTERM ends listening, lets open connections go on, then logs an ephemeral node
// out; the exit code is 0 (SVC-175, SVC-176).
func TestShutdownDrains(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-L", "0:web:7", "--drain", "1m")...)
	addr := p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")
	c := dialEcho(t, addr)
	c.works()
	p.Process.Signal(syscall.SIGTERM)
	p.find("tsnode: draining 1 connection for up to 1m0s; a second signal ends it now")
	awaitRefused(t, addr)
	c.works()
	c.Close()
	if code, rest := p.exit(); code != 0 {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
	awaitGone(t, tailnet, "laptop")
}

// Connections that do not end are closed once --drain is over, and the process ends
// all the same.
func TestShutdownEndsDraining(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-L", "0:web:7", "--drain", "100ms")...)
	addr := p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")
	c := dialEcho(t, addr)
	c.works()
	p.Process.Signal(os.Interrupt)
	c.ends()
	code, rest := p.exit()
	if code != 0 || !strings.Contains(strings.Join(rest, "\n"), "tsnode: closing 1 connection, still open after 100ms") {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// A second signal ends the process at once, with 1.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-L", "0:web:7", "--drain", "1h")...)
	addr := p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")
	c := dialEcho(t, addr)
	c.works()
	p.Process.Signal(syscall.SIGTERM)
	awaitRefused(t, addr)
	p.Process.Signal(syscall.SIGTERM)
	if code, _ := p.exit(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
}

// The second signal ends all at once, whatever the first one was. SIGHUP is none: it
// comes twice when a terminal is closed, and where it has the configuration read again,
// it says that this is too late.
func TestSignalsWhileDraining(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	config := writeFile(t, "tsnode.hujson", "{}")
	for _, test := range []struct {
		name  string
		first os.Signal
		flags []string
	}{
		{"hangup", syscall.SIGHUP, nil},
		{"end", syscall.SIGTERM, nil},
		{"with a file", os.Interrupt, []string{"--config", config}},
	} {
		p := startProcess(t, withKey(tailnet), append(append(joins(tailnet, "laptop"), "-L", "0:web:7", "--drain", "1h"), test.flags...)...)
		addr := p.find(`forwarding (\S+) to web:7`)
		p.find("running as laptop")
		c := dialEcho(t, addr)
		c.works()
		p.Process.Signal(test.first)
		p.find("draining 1 connection for up to 1h0m0s")
		p.Process.Signal(syscall.SIGHUP)
		if test.flags != nil {
			p.find("the configuration is not read again: this process is about to end")
		}
		c.works()
		p.Process.Signal(syscall.SIGTERM)
		if code, rest := p.exit(); code != exitFailed {
			t.Errorf("%s: exit code %d\n%s", test.name, code, strings.Join(rest, "\n"))
		}
	}
}

// Without a wait nothing is said of connections that there are not.
func TestShutdownWithoutDraining(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "-L", "0:web:7", "--drain", "0s")...)
	p.find("running as laptop")
	p.Process.Signal(syscall.SIGTERM)
	if code, rest := p.exit(); code != 0 || strings.Contains(strings.Join(rest, "\n"), "connection") {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// The end of a terminal ends a node that has no configuration file to read again, as
// SIGTERM does; with nohup it goes on.
func TestHangup(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	p := startProcess(t, withKey(tailnet), joins(tailnet, "laptop")...)
	p.find("running as laptop")
	p.Process.Signal(syscall.SIGHUP)
	if code, rest := p.exit(); code != 0 {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
	awaitGone(t, tailnet, "laptop")

	echoNode(t, tailnet, "web")
	p = startCommand(t, "sh", withKey(tailnet), append([]string{"-c", `trap "" HUP; exec tsnode "$@"`, "sh"}, append(joins(tailnet, "server"), "--drain", "100ms", "-L", "0:web:7")...)...)
	addr := p.find(`forwarding (\S+) to web:7`)
	p.find("running as server")
	p.Process.Signal(syscall.SIGHUP)
	dialEcho(t, addr).works()
	p.Process.Signal(syscall.SIGTERM)
	if code, rest := p.exit(); code != 0 {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}

// SIGHUP reads the configuration again: forwards that did not change keep their
// connections, others come and go, preferences change, and what needs a restart is
// named. A bad file changes nothing.
func TestReload(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	config := writeFile(t, "tsnode.hujson", `{"hostname": "laptop", "local": ["0:web:7", "0:web:7,max=7"]}`)
	p := startProcess(t, withKey(tailnet), "run", "--config", config, "--login-server", tailnet.URL())
	kept, gone := p.find(`forwarding (\S+) to web:7`), p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")
	stays, ends := dialEcho(t, kept), dialEcho(t, gone)
	stays.works()
	ends.works()

	writeFile(t, config, `{"hostname": "laptop", "local": ["0:web:7", "0:web:7,max=8"], "shields-up": true, "port": 7}`)
	p.Process.Signal(syscall.SIGHUP)
	fresh := p.find(`forwarding (\S+) to web:7`)
	p.find("was read again, changed: shields-up, local")
	p.find("need a restart: port")
	ends.ends()
	stays.works()
	dialEcho(t, fresh).works()
	awaitRefused(t, gone)

	writeFile(t, config, `{"hostnam": "laptop"}`)
	p.Process.Signal(syscall.SIGHUP)
	p.find(`all stays as it was: .*tsnode.hujson:1:2: unknown key "hostnam": did you mean "hostname"`)
	stays.works()
}

// With JSON a configuration that is refused is an error, and a change that needs a
// restart a warning.
func TestReloadHasLevels(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	config := writeFile(t, "tsnode.hujson", `{"hostname": "laptop"}`)
	p := startProcess(t, withKey(tailnet), "run", "--config", config, "--login-server", tailnet.URL(), "--log-format", "json")
	p.find("running as laptop")
	for text, want := range map[string]string{
		`{"hostnam": "laptop"}`:                 `"level":"ERROR","msg":"the configuration was not read again`,
		`{"hostname": "laptop", "port": 7}`:     `"level":"WARN","msg":"these changes of the configuration need a restart: port`,
		`{"hostname": "laptop", "drain": "8s"}`: `"level":"INFO","msg":"the configuration was read again, changed: drain`,
	} {
		writeFile(t, config, text)
		p.Process.Signal(syscall.SIGHUP)
		p.find(want)
	}
}

// systemd hears when the node is on its tailnet, that it still turns, and that it
// ends (sd_notify(3)).
func TestNotify(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	socket := filepath.Join(t.TempDir(), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	heard.SetDeadline(time.Now().Add(patience))
	await := func(want string) {
		t.Helper()
		for b := make([]byte, 128); ; {
			n, err := heard.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if string(b[:n]) == want {
				return
			}
		}
	}
	environ := append(withKey(tailnet), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=100000")
	p := startProcess(t, environ, joins(tailnet, "service")...)
	await(notifyReady)
	await(notifyWatchdog)
	p.Process.Signal(syscall.SIGTERM)
	await(notifyStopping)
	if code, rest := p.exit(); code != 0 {
		t.Errorf("exit code %d\n%s", code, strings.Join(rest, "\n"))
	}
}
