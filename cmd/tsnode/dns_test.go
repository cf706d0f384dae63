package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
)

// TestDNS asks a tailnet's DNS, and shows how names resolve.
func TestDNS(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	err := tailnet.SetDNS(netmap.DNSConfig{
		Proxied: true, Domains: []string{"tailnet.test"},
		ExtraRecords: []netmap.DNSRecord{{Name: "db.tailnet.test", Value: "10.0.0.5"}},
		Routes:       map[string][]netmap.Resolver{"corp.example": {{Addr: "10.0.0.53"}}, "tls.example": {{Addr: "tls://x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--socket", runningNode(t, tailnet, "me")}
	for _, tt := range []struct {
		args, want string
		fails      bool
	}{
		{"query me", "me.  5  A  100.64.0.", false},
		{"query db.tailnet.test", "NOERROR in", false},
		{"query 10.0.0.5 ptr", "PTR  db.tailnet.test.", false},
		{"query nobody.tailnet.test", "NXDOMAIN in", true},
		{"query x.tls.example", "answered by nobody", true},
		{"status", "route corp.example:  10.0.0.53:53", false},
		{"status", `problem:             resolver "tls://x"`, false},
	} {
		out, err := output(t, append(append([]string{"dns"}, strings.Fields(tt.args)...), flags...)...)
		if (err != nil) != tt.fails || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	out, err := output(t, append([]string{"dns", "query", "db.tailnet.test", "--json"}, flags...)...)
	var answer struct {
		Code    string
		Local   bool
		Records []struct{ Data string }
	}
	if jsonErr := json.Unmarshal([]byte(out), &answer); err != nil || jsonErr != nil || !answer.Local || answer.Code != "NOERROR" || len(answer.Records) != 1 || answer.Records[0].Data != "10.0.0.5" {
		t.Errorf("--json: %v, %v, %+v", err, jsonErr, answer)
	}
}
