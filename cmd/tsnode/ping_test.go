package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// output runs the command line in this process and returns what it prints.
func output(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, log bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&log)
	root.SetIn(strings.NewReader(""))
	err = root.ExecuteContext(t.Context())
	t.Logf("%v: %v\n%s%s", args, err, out.String(), log.String())
	return out.String(), err
}

// TestPing pings a peer in all the ways there are.
func TestPing(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	peer := &node.Node{Hostname: "web", ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{})}
	defer peer.Close()
	if _, err := peer.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(tailnet.AuthKey(devnet.KeyOptions{Reusable: true})), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"ping", "--login-server", tailnet.URL(), "--auth-key", "file:" + key, "--hostname", "me"}
	for _, tt := range []struct{ name, flag, want string }{
		{"until direct", "--until-direct", "pong from web.tailnet.test (100.64.0.1) via direct "},
		{"TSMP", "--tsmp", "TSMP pong from web.tailnet.test"},
		{"ICMP", "--icmp", "ICMP pong from web.tailnet.test"},
		{"peerAPI", "--peerapi", "peerapi pong from web.tailnet.test"},
	} {
		out, err := output(t, append(flags, tt.flag, "web")...)
		if err != nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	out, err := output(t, append(flags, "--json", "--until-direct=false", "--c", "1", "web")...)
	var line struct {
		Kind, Name     string
		LatencySeconds float64
	}
	if jsonErr := json.Unmarshal([]byte(out), &line); err != nil || jsonErr != nil || line.Name != "web.tailnet.test" || line.LatencySeconds <= 0 {
		t.Errorf("--json: %v, %v, %+v", err, jsonErr, line)
	}
	if _, err := output(t, append(flags, "nobody")...); !errors.Is(err, node.ErrNameNotFound) {
		t.Errorf("unknown name: %v", err)
	}
}

// TestNetcheck reports on the relay of a tailnet.
func TestNetcheck(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	out, err := output(t, "netcheck", "--login-server", tailnet.URL())
	if err != nil || !strings.Contains(out, "seen as 127.0.0.1:") || !strings.Contains(out, "dev1") {
		t.Errorf("%v", err)
	}
	none := httptest.NewServer(nil)
	defer none.Close()
	if _, err := output(t, "netcheck", "--login-server", none.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("no map: %v", err)
	}
}
