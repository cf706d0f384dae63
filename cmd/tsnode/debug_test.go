package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// debugPolicy lets all reach port 80 by TCP, and everything by protocol 47, GRE.
const debugPolicy = `{"acls": [
	{"action": "accept", "proto": "tcp", "src": ["*"], "dst": ["*:80"]},
	{"action": "accept", "proto": "47", "src": ["*"], "dst": ["*:*"]},
]}`

// TestDebugFilter asks a running node what would become of packets both ways, and
// why. Names are the node's to know.
func TestDebugFilter(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{Policy: []byte(debugPolicy)})
	runningNode(t, tailnet, "web")
	socket, me := runNode(t, tailnet, "me")
	ask := func(args string) (string, error) {
		return output(t, append([]string{"debug", "filter", "--socket", socket}, strings.Fields(args)...)...)
	}
	for _, tt := range []struct {
		args, want string
		err        error
	}{
		{"tcp web self:80", "in from web.tailnet.test\naccepted", nil},
		{"tcp web me:80", "port 80", nil},
		{"tcp web:5000 self:81", "no rule permits it", errDropped},
		{"udp web self:80", "no rule permits it", errDropped},
		{"TCP self web:81", "out to web.tailnet.test\naccepted", nil},
		{"udp self 10.0.0.7:53", "no peer has a route to 10.0.0.7", errDropped},
		{"tcp 10.0.0.7 self:80", "10.0.0.7 is no address of a peer", errDropped},
		{"icmp web.tailnet.test self", "icmp 100.64.0.1 > ", nil},
		{"47 web self", "protocol 47 100.64.0.1 > ", nil},
		{"99 self web", "applications may not send this protocol", errDropped},
	} {
		out, err := ask(tt.args)
		if !errors.Is(err, tt.err) || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	for args, want := range map[string]string{
		"tcp nobody self:80":                    `source: "nobody": name not found`,
		"tcp 100.64.0.1 [fd7a:115c:a1e0::1]:80": errFamilies.Error(),
	} {
		var status *localapi.StatusError
		if _, err := ask(args); !errors.As(err, &status) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
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
	if err := me.EditPreferences(func(p *node.Preferences) { p.ShieldsUp = true }); err != nil {
		t.Fatal(err)
	}
	if out, err := ask("tcp web self:80"); !errors.Is(err, errDropped) || !strings.Contains(out, "new flows are not taken") {
		t.Errorf("shields up: %v", err)
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
