package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// debugPolicy lets all reach port 80 by TCP, and everything by protocol 47, GRE.
const debugPolicy = `{"acls": [
	{"action": "accept", "proto": "tcp", "src": ["*"], "dst": ["*:80"]},
	{"action": "accept", "proto": "47", "src": ["*"], "dst": ["*:*"]},
]}`

// TestDebugFilter asks what would become of packets both ways, and why.
func TestDebugFilter(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{Policy: []byte(debugPolicy)})
	peer := &node.Node{Hostname: "web", ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{})}
	defer peer.Close()
	if _, err := peer.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(tailnet.AuthKey(devnet.KeyOptions{Reusable: true})), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--login-server", tailnet.URL(), "--auth-key", "file:" + key, "--hostname", "me"}
	ask := func(args string) (string, error) {
		return output(t, append(append([]string{"debug", "filter"}, strings.Fields(args)...), flags...)...)
	}
	for _, tt := range []struct {
		args, want string
		err        error
	}{
		{"tcp web self:80", "in from web.tailnet.test\naccepted", nil},
		{"tcp web me:80", "port 80", nil},
		{"tcp web:5000 self:81", "no rule permits it", errDropped},
		{"tcp web self:80 --shields-up", "new flows are not taken", errDropped},
		{"udp web self:80", "no rule permits it", errDropped},
		{"TCP self web:81", "out to web.tailnet.test\naccepted", nil},
		{"udp self 10.0.0.7:53", "no peer has a route to 10.0.0.7", errDropped},
		{"tcp 10.0.0.7 self:80", "10.0.0.7 is no address of a peer", errDropped},
		{"icmp web.tailnet.test self", "icmp 100.64.0.1 > ", nil},
		{"47 web self", "protocol 47 100.64.0.1 > ", nil},
		{"99 self web", "applications may not send this protocol", errDropped},
		{"tcp nobody self:80", "", node.ErrNameNotFound},
		{"tcp 100.64.0.1 [fd7a:115c:a1e0::1]:80", "", errFamilies},
	} {
		out, err := ask(tt.args)
		if !errors.Is(err, tt.err) || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	out, err := ask("tcp web self:80 --json")
	var v struct {
		Inbound, Passes bool
		Protocol        int
		Src, Dst, Peer  string
		Rule            *struct{ DstPorts []any }
	}
	if jsonErr := json.Unmarshal([]byte(out), &v); err != nil || jsonErr != nil || !v.Inbound || !v.Passes || v.Protocol != 6 ||
		v.Src != "100.64.0.1:0" || v.Peer != "web.tailnet.test" || v.Rule == nil || len(v.Rule.DstPorts) == 0 {
		t.Errorf("--json: %v, %v, %+v", err, jsonErr, v)
	}
}

// An address may be IPv4 in the form of IPv6; IPv6 has brackets before a port.
func TestParseTuple(t *testing.T) {
	for _, tt := range []struct {
		args string
		want tuple
	}{
		{"tcp ::ffff:100.64.0.1 [fd7a::1]:80", tuple{6, end{"100.64.0.1", 0}, end{"fd7a::1", 80}}},
		{"1 fd7a::1 [fd7a::2]", tuple{1, end{"fd7a::1", 0}, end{"fd7a::2", 0}}},
		{"Udp web:1 web.tailnet.test:65535", tuple{17, end{"web", 1}, end{"web.tailnet.test", 65535}}},
	} {
		if got, err := parseTuple(strings.Fields(tt.args)); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.args, got, err, tt.want)
		}
	}
}
