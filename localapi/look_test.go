package localapi

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The shape of a Status, 13.3, with keys as the control server gave them.
func TestStatusShape(t *testing.T) {
	n := newFake()
	n.traffic = Traffic{
		Known: true, Direct: netip.MustParseAddrPort("192.0.2.1:41641"), RxBytes: 10, TxBytes: 20,
		LastHandshake: time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC), LastSent: time.Date(2026, 1, 2, 4, 0, 1, 0, time.UTC),
	}
	b := &statusBuilder{Snapshot: n.Snapshot(), traffic: n.Traffic, now: time.Date(2026, 1, 2, 4, 1, 0, 0, time.UTC)}
	b.ExitNode, b.Health = "n2", []string{"all is well but for this"}
	text, err := json.MarshalIndent(b.status("1.2.3", true), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`nodekey:[0-9a-f]{64}`).ReplaceAllString(string(text), "nodekey:KEY") + "\n"
	golden(t, "status.json", got)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed; -update rewrites it. Got\n%s", path, got)
	}
}

// SVC-129: a peer is active for 2 minutes after it was sent to, and its path is
// the direct one, a peer relay's, or that of its home relay.
func TestPeerActivity(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name    string
		traffic Traffic
		active  bool
		cur     string
	}{
		{"never", Traffic{}, false, ""},
		{"direct", Traffic{Known: true, LastSent: now.Add(-time.Second), Direct: netip.MustParseAddrPort("192.0.2.1:1")}, true, "192.0.2.1:1"},
		{"relayed", Traffic{Known: true, LastSent: now.Add(-time.Second)}, true, ""},
		{"long ago", Traffic{Known: true, LastSent: now.Add(-activeFor)}, false, ""},
	} {
		n := newFake()
		n.traffic = tt.traffic
		b := &statusBuilder{Snapshot: n.Snapshot(), traffic: n.Traffic, now: now}
		p := b.peer(n.Snapshot().Netmap.Peers[0])
		if p.Active != tt.active || p.CurAddr != tt.cur || p.Relay != "one" || p.InEngine != tt.traffic.Known {
			t.Errorf("%s: %+v", tt.name, p)
		}
	}
}

// SVC-128: states by name; a node that is not logged in has a status, too, and
// clients need to find a Self in it.
func TestStatusBeforeLogin(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	for state, name := range map[State]string{
		NoState: "NoState", InUseOtherUser: "InUseOtherUser", NeedsLogin: "NeedsLogin", NeedsMachineAuth: "NeedsMachineAuth",
		Stopped: "Stopped", Starting: "Starting", Running: "Running",
	} {
		n.snapshot.Store(Snapshot{State: state, AuthURL: "https://login.test/x"})
		s, err := c.Status(within(t))
		if err != nil || s.BackendState != name || s.Self == nil || s.HaveNodeKey || s.AuthURL != "https://login.test/x" || s.TUN {
			t.Errorf("%v: %+v, %v", state, s, err)
		}
	}
}

func TestStatusWithoutPeers(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	for query, peers := range map[string]int{"": 1, "?peers=true": 1, "?peers=false": 0} {
		var s Status
		if err := c.Call(within(t), "GET", "status"+query, nil, &s); err != nil || len(s.Peer) != peers {
			t.Errorf("%q: %d peers, %v", query, len(s.Peer), err)
		}
	}
	if err := c.Call(within(t), "GET", "status?peers=maybe", nil, nil); err == nil {
		t.Error("peers=maybe is understood")
	}
}

// SVC-117: whois answers 404 for who is unknown, 400 for what is no address.
func TestWhoIs(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	who, err := c.WhoIs(within(t), "100.64.0.2:80")
	if err != nil || who.Node.Name != "web.tailnet.test." || who.UserProfile.LoginName != "ann@example.org" || string(who.CapMap["example.org/cap"][0]) != `{"a":1}` {
		t.Errorf("%+v, %v", who, err)
	}
	for query, want := range map[string]int{
		"?addr=100.64.0.2:80&dst_ip=100.64.0.9": 200, "?addr=100.64.0.9": 404, "?addr=nonsense": 400, "": 400, "?addr=100.64.0.2:80&dst_ip=x": 400,
	} {
		if status, text, _ := ask(t, c, "GET", prefix+"whois"+query, ""); status != want {
			t.Errorf("%s: %d %s, want %d", query, status, text, want)
		}
	}
}

// What answers for peers, users, relays and names, with a network map and without.
func TestLookups(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, func(c *Config) {
		c.Metrics = func(w io.Writer) error { _, err := io.WriteString(w, "a_metric 1\n"); return err }
	})
	for path, want := range map[string]string{
		"peer-by-id?id=2":           `"Name":"web.tailnet.test."`,
		"user-profile?id=7":         `"LoginName":"ann@example.org"`,
		"derpmap":                   `"RegionCode":"one"`,
		"dns-config":                `"Proxied":true`,
		"cert-domains":              `["me.tailnet.test"]`,
		"dns-query?name=a.&type=MX": `"Bytes":"YS5NWA==","Resolvers":[{"Addr":"192.0.2.53"}]`,
		"dns-query?name=a.":         `"Bytes":"YS5B"`,
		"services":                  `{}`,
		"check-so-mark-in-use":      `{"useSoMark":true}`,
		"check-ip-forwarding":       `{"Warning":""}`,
		"profiles/":                 `"NodeID":"n1"`,
		"profiles/current":          `"ControlURL":"https://control.test"`,
		"usermetrics":               "a_metric 1",
		"metrics":                   "a_metric 1",
		"goroutines":                "goroutine ",
		"debug-packet-filter-rules": "null",
		"serve-config":              "{}",
	} {
		if status, text, _ := ask(t, c, "GET", prefix+path, ""); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", path, status, text, want)
		}
	}
	if status, text, _ := ask(t, c, "POST", prefix+"debug?action=current-netmap", ""); status != 200 || !strings.Contains(text, `"Domain":"example.org"`) {
		t.Errorf("current-netmap: %d %s", status, text)
	}
	n.snapshot.Store(Snapshot{State: Starting})
	for _, path := range []string{"peer-by-id?id=2", "user-profile?id=7", "derpmap", "dns-config"} {
		if status, text, _ := ask(t, c, "GET", prefix+path, ""); status != http.StatusServiceUnavailable {
			t.Errorf("%s without a map: %d %s", path, status, text)
		}
	}
}

// Issue 7: serve is not there yet: an empty configuration, and no way to write one.
func TestServeConfigIsEmpty(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	status, text, h := ask(t, c, "GET", prefix+"serve-config", "")
	if status != 200 || text != "{}" || len(h.Get("Etag")) != 64 {
		t.Errorf("%d %s %v", status, text, h)
	}
	if status, text, _ := ask(t, c, "POST", prefix+"serve-config", "{}"); status != http.StatusNotImplemented || !strings.Contains(text, "serve") {
		t.Errorf("%d %s", status, text)
	}
}

// SVC-131: the results of all kinds of pings.
func TestPing(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	for _, kind := range []string{PingDisco, PingTSMP, PingICMP, PingPeerAPI} {
		r, err := c.Ping(within(t), webIP, kind)
		if err != nil || r.Err != "" || r.NodeName != "web.tailnet.test" || r.LatencySeconds != 0.005 || r.NodeIP != webIP.String() {
			t.Errorf("%s: %+v, %v", kind, r, err)
		}
		if (r.Endpoint != "") != (kind == PingDisco) || (r.PeerAPIURL == "http://100.64.0.2:5001") != (kind == PingPeerAPI) {
			t.Errorf("%s: %+v", kind, r)
		}
	}
	if r, err := c.Ping(within(t), selfIP, PingDisco); err != nil || !r.IsLocalIP || r.Err == "" {
		t.Errorf("of ourselves: %+v, %v", r, err)
	}
	if r, err := c.Ping(within(t), netip.MustParseAddr("100.64.0.9"), PingDisco); err != nil || r.Err != "no route" {
		t.Errorf("of nobody: %+v, %v", r, err)
	}
	for _, query := range []string{"?ip=x&type=disco", "?ip=100.64.0.2&type=x", "?ip=100.64.0.2"} {
		if status, _, _ := ask(t, c, "POST", prefix+"ping"+query, ""); status != 400 {
			t.Errorf("%s: %d", query, status)
		}
	}
}

// SVC-127: all of the minimum set is there.
func TestMinimumSet(t *testing.T) {
	for _, name := range strings.Fields(`status whois ping prefs check-prefs start login-interactive logout watch-ipn-bus derpmap serve-config cert/
		cert-domains dial goroutines usermetrics metrics dns-config dns-query profiles/ query-feature check-so-mark-in-use
		upload-client-metrics shutdown`) {
		if !slices.ContainsFunc(endpoints(), func(r route) bool { return r.path == name }) {
			t.Errorf("%s is missing", name)
		}
	}
}
