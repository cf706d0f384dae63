//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/proxy"
)

// asked runs a command in this process and returns what it prints.
func asked(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// Forwards are added to a running node by its socket, listed and removed. SIGHUP
// leaves alone what was added so, and brings back what the file has.
func TestForwardBySocket(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	socket := filepath.Join(t.TempDir(), "tsnode.sock")
	config := writeFile(t, "tsnode.hujson", `{"hostname": "laptop", "local": ["0:web:7"]}`)
	p := startProcess(t, withKey(tailnet), "run", "--config", config, "--login-server", tailnet.URL(), "--socket", socket)
	filed := p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")

	said, err := asked(t, "forward", "add", "--socket", socket, "-L", "0:web:7,max=9", "-D", "0")
	if err != nil || !strings.Contains(said, "proxy on 127.0.0.1:") {
		t.Fatalf("%v: %s", err, said)
	}
	added := strings.Fields(said)[1]
	c := dialEcho(t, added)
	c.works()

	reload := func(text string) {
		writeFile(t, config, text)
		p.Process.Signal(syscall.SIGHUP)
		p.find("the configuration was read again")
	}
	reload(`{"hostname": "laptop"}`)
	awaitRefused(t, filed)
	c.works()
	dialEcho(t, added).works()
	reload(`{"hostname": "laptop", "local": ["0:web:8"]}`)
	c.works()

	said, err = asked(t, "forward", "list", "--socket", socket, "--json")
	var all []proxy.Status
	if err := errors.Join(err, json.Unmarshal([]byte(said), &all)); err != nil || len(all) != 3 {
		t.Fatalf("%v: %s", err, said)
	}
	if s := all[1]; s.Listen != added || s.Target != "web:7" || s.Total != 2 || s.BytesIn == 0 || !strings.HasSuffix(s.Forward, ":0:web:7,max=9") {
		t.Errorf("%+v", s)
	}
	if said, err = asked(t, "forward", "list", "--socket", socket); err != nil || strings.Count(said, "\n") != 4 {
		t.Errorf("%v: %s", err, said)
	}

	if _, err := asked(t, "forward", "remove", "--socket", socket, "-L", "0:web:7"); err != nil {
		t.Fatal(err)
	}
	c.ends()
	awaitRefused(t, added)
	var status *localapi.StatusError
	if _, err := asked(t, "forward", "remove", "--socket", socket, "-L", "0:web:7"); !errors.As(err, &status) || !strings.Contains(err.Error(), "there is no such forward") {
		t.Errorf("removed twice: %v", err)
	}
}

// A configuration that is read again and has not changed leaves its forwards to what
// the socket adds and removes after it: they stay, with their connections.
func TestReloadKeepsForwardsForTheSocket(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	echoNode(t, tailnet, "web")
	socket := filepath.Join(t.TempDir(), "tsnode.sock")
	config := writeFile(t, "tsnode.hujson", `{"hostname": "laptop", "local": ["0:web:7", "0:web:7,max=7"]}`)
	p := startProcess(t, withKey(tailnet), "run", "--config", config, "--login-server", tailnet.URL(), "--socket", socket)
	first, second := p.find(`forwarding (\S+) to web:7`), p.find(`forwarding (\S+) to web:7`)
	p.find("running as laptop")
	held := []*echo{dialEcho(t, first), dialEcho(t, second)}
	works := func() {
		t.Helper()
		for _, c := range held {
			c.works()
		}
	}
	works()

	p.Process.Signal(syscall.SIGHUP)
	p.find("nothing has changed")
	works()
	for _, verb := range []string{"add", "remove"} {
		if said, err := asked(t, "forward", verb, "--socket", socket, "-L", "0:web:8"); err != nil {
			t.Fatalf("%s: %v: %s", verb, err, said)
		}
		works()
	}
	dialEcho(t, first).works()
	dialEcho(t, second).works()
	said, err := asked(t, "forward", "list", "--socket", socket, "--json")
	var all []proxy.Status
	if err := errors.Join(err, json.Unmarshal([]byte(said), &all)); err != nil || len(all) != 2 {
		t.Fatalf("%v: %s", err, said)
	}
	for i, want := range []string{first, second} {
		if all[i].Listen != want || all[i].Total != 2 {
			t.Errorf("%+v, want it to listen on %s", all[i], want)
		}
	}
}

// What cannot be added says why, and nothing of it is kept.
func TestForwardIsRefused(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	socket := filepath.Join(t.TempDir(), "tsnode.sock")
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "laptop"), "--socket", socket)...)
	p.find("running as laptop")
	_, taken, _ := strings.Cut(echoServer(t), ":")
	for _, test := range []struct {
		args  []string
		usage bool
		want  string
	}{
		{nil, true, "name a forward"},
		{[]string{"-L", "x"}, true, "want [bind:]port:host:hostport"},
		{[]string{"-R", "80:localhost:1", "-R", "80:localhost:2"}, false, "-R *:80:localhost:1 is for the same port"},
		{[]string{"-D", "0.0.0.0:0"}, false, "--proxy-open"},
		{[]string{"-L", "0:web:1", "-L", taken + ":web:7"}, false, "address already in use"},
		{[]string{"-R", "100.127.255.1:7:127.0.0.1:1"}, false, "is not an address of this node"},
	} {
		var usage *usageError
		_, err := asked(t, append([]string{"forward", "add", "--socket", socket}, test.args...)...)
		if err == nil || errors.As(err, &usage) != test.usage || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.args, err)
		}
	}
	if said, err := asked(t, "forward", "list", "--socket", socket, "--json"); err != nil || strings.TrimSpace(said) != "[]" {
		t.Errorf("%v: %s", err, said)
	}
}

// The words on the way to the node are those of the command line and of the list.
func TestForwardWords(t *testing.T) {
	words := forwardWords([]string{"8080:web:80"}, []string{"80:unix:/s"}, []string{"1080,max=5"}, []string{"1080"})
	specs, err := parseForwards(words)
	if err != nil || len(specs) != 4 {
		t.Fatalf("%v, %v", specs, err)
	}
	for _, s := range specs {
		again, err := parseForwards([]string{s.String()})
		if err != nil || len(again) != 1 || again[0] != s {
			t.Errorf("%v: %v, %v", s, again, err)
		}
	}
	for _, bad := range []string{"", "-L", "-X 1", "8080:web:80", "-L x"} {
		if specs, err := parseForwards([]string{bad}); err == nil {
			t.Errorf("%q: %v", bad, specs)
		}
	}
}
