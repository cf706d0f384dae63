package relayd

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// Each page of the debug server (DERP-159).
func TestDebugPages(t *testing.T) {
	r := run(t, testConfig(t))
	for _, tt := range []struct {
		path   string
		header http.Header
		status int
		body   string
	}{
		{path: "/", status: 302},
		{path: "/debug/", status: 200, body: "Public key: nodekey:"},
		{path: "/debug/vars", status: 200, body: `"tls_listener"`},
		{path: "/debug/varz", status: 200, body: "# TYPE derp_accepts counter"},
		{path: "/metrics", status: 200, body: "go_goroutines"},
		{path: "/debug/check", status: 200, body: "consistent"},
		{path: "/debug/gc", status: 200, body: "done"},
		{path: "/debug/pprof/", status: 200, body: "goroutine"},
		{path: "/debug/pprof/goroutine?debug=1", status: 200, body: "goroutine profile"},
		{path: "/debug/nothing", status: 404},
		{path: "/debug/set-mutex-profile-fraction?rate=0", status: 400, body: "Sec-Debug: derp"},
		{path: "/debug/set-mutex-profile-fraction?rate=x", header: http.Header{"Sec-Debug": {"derp"}}, status: 400, body: "rate"},
		{path: "/debug/set-mutex-profile-fraction?rate=0", header: http.Header{"Sec-Debug": {"derp"}}, status: 200, body: "was"},
		{path: "/debug/vars", header: http.Header{"X-Forwarded-For": {"127.0.0.1"}}, status: 403, body: "denied"},
		{path: "/debug/vars", header: http.Header{"Host": {"attacker.example:80"}}, status: 403, body: "denied"},
		{path: "/debug/vars", header: http.Header{"Host": {"localhost:3341"}}, status: 200, body: "{"},
	} {
		got := r.ask("GET", "http://"+r.addrs.Debug.String()+tt.path, tt.header)
		if got.status != tt.status || !strings.Contains(got.body, tt.body) {
			t.Errorf("%s %v: %d %q, want %d %q", tt.path, tt.header, got.status, got.body, tt.status, tt.body)
		}
		checkBrowserHeaders(t, got.header, true)
	}
}

// The debug server is for loopback and those who are allowed; what a proxy
// forwards is nobody's.
func TestMayDebug(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}
	for from, want := range map[string]bool{
		"127.0.0.1:5": true, "[::1]:5": true, "[::ffff:127.0.0.1]:5": true, "192.0.2.77:5": true, "[2001:db8::1]:5": true,
		"[::ffff:192.0.2.9]:5": true, "[2001:db8::2]:5": false, "198.51.100.1:5": false, "100.64.0.1:5": false, "": false, "pipe": false,
	} {
		req := httptest.NewRequest("GET", "http://127.0.0.1:3341/debug/", nil)
		req.RemoteAddr = from
		if got := mayDebug(allow, req); got != want {
			t.Errorf("from %q: %v, want %v", from, got, want)
		}
	}
}

// The metrics address shows metrics alone.
func TestMetricsAddr(t *testing.T) {
	c := testConfig(t)
	c.MetricsAddr, c.DebugAddr = "127.0.0.1:0", ""
	r := run(t, c)
	at := "http://" + r.addrs.Metrics.String()
	if got := r.ask("GET", at+"/metrics", nil); got.status != 200 || !strings.Contains(got.body, "derp_accepts") {
		t.Errorf("%d %q", got.status, got.body)
	}
	for _, path := range []string{"/", "/debug/", "/debug/pprof/", "/debug/vars"} {
		if got := r.ask("GET", at+path, nil); got.status != 404 {
			t.Errorf("%s: status %d", path, got.status)
		}
	}
	if r.addrs.Debug.IsValid() {
		t.Errorf("a debug server listens at %v", r.addrs.Debug)
	}
}

// sample is a line of the Prometheus text format.
var sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:, ?[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*")*\})? ([-+0-9.eE]+|[+-]Inf|NaN)$`)

// parsePrometheus returns the types and values of a text; it fails the test on
// what a scraper refuses.
func parsePrometheus(t *testing.T, text string) (types, values map[string]string) {
	t.Helper()
	types, values = make(map[string]string), make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if types[name] != "" {
				t.Errorf("%s has two types", name)
			}
			types[name] = kind
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("no sample: %q", line)
			continue
		}
		if _, twice := values[m[1]+m[2]]; twice {
			t.Errorf("%s%s occurs twice", m[1], m[2])
		}
		values[m[1]+m[2]] = m[3]
	}
	return types, values
}

// The metrics are Prometheus text with the reference's names (DERP-83,
// DERP-84).
func TestMetrics(t *testing.T) {
	r := run(t, testConfig(t))
	types, values := parsePrometheus(t, r.debug("/metrics").body)
	for name, kind := range map[string]string{
		"derp_current_connections": "gauge", "derp_clients_total": "gauge", "derp_accepts": "counter", "derp_average_queue_duration_ms": "gauge",
		"derp_packets_sent": "counter", "derp_bytes_received": "counter", "derp_packets_received_kind": "counter",
		"derp_packets_dropped": "counter", "derp_bytes_dropped": "counter",
		"stun_requests": "counter", "stun_addrfamily": "counter",
		"tls_listener_accepted_connections": "counter", "derper_tls_active_version": "gauge",
		"bootstrap_dns_requests": "counter", "go_sync_mutex_wait_seconds": "counter", "derp_websocket_accepts": "counter",
		"derp_version": "gauge",
	} {
		if types[name] != kind {
			t.Errorf("type of %s is %q, want %q", name, types[name], kind)
		}
	}
	for _, name := range []string{
		`derp_packets_dropped{kind="disco",reason="queue_head"}`, `derp_packets_received_kind{kind="other"}`,
		`stun_requests{disposition="not_stun"}`, `derper_tls_active_version{version="1.3"}`, "derp_accepts",
	} {
		if v := values[name]; v != "0" {
			t.Errorf("%s is %q, want 0", name, v)
		}
	}
	var vars map[string]json.RawMessage
	if err := json.Unmarshal([]byte(r.debug("/debug/vars").body), &vars); err != nil || vars["derp"] == nil {
		t.Errorf("/debug/vars: %v", err)
	}
}

// How variables become Prometheus text.
func TestWritePrometheus(t *testing.T) {
	for _, tt := range []struct{ name, vars, want string }{
		{"numbers", `{"a": 18446744073709551615, "gauge_b": -1.5}`, "# TYPE a counter\na 18446744073709551615\n# TYPE b gauge\nb -1.5\n"},
		{"group", `{"derp": {"gauge_x": 1, "y": 2}}`, "# TYPE derp_x gauge\nderp_x 1\n# TYPE derp_y counter\nderp_y 2\n"},
		{"labels", `{"derp": {"counter_tcp_rtt": {"50ms": 3, "10ms": 1}}}`, "# TYPE derp_tcp_rtt counter\nderp_tcp_rtt{le=\"10ms\"} 1\nderp_tcp_rtt{le=\"50ms\"} 3\n"},
		{"links", `{"derp_mesh": {"gauge_peers": {"https://a/derp": 4}}}`, "# TYPE derp_mesh_peers gauge\nderp_mesh_peers{link=\"https://a/derp\"} 4\n"},
		{"histogram", `{"derp": {"counter_x": {"10": 3, "2": 1, "+Inf": 4, "sum": 50, "count": 4}}}`, "# TYPE derp_x histogram\nderp_x_bucket{le=\"2\"} 1\nderp_x_bucket{le=\"10\"} 3\nderp_x_bucket{le=\"+Inf\"} 4\nderp_x_sum 50\nderp_x_count 4\n"},
		{"text", `{"version": "1 \"x\"\\"}`, "# TYPE version gauge\nversion{version=\"1 \\\"x\\\"\\\\\"} 1\n"},
		{"full labels", `{"derp_packets_dropped": {"{reason=\"x\",kind=\"disco\"}": 2}}`, "# TYPE derp_packets_dropped counter\nderp_packets_dropped{reason=\"x\",kind=\"disco\"} 2\n"},
		{"others", `{"a": null, "b": [1], "c": true}`, ""},
	} {
		var b strings.Builder
		if err := writePrometheus(&b, []byte(tt.vars)); err != nil || b.String() != tt.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", tt.name, err, b.String(), tt.want)
		}
		parsePrometheus(t, b.String())
	}
	if err := writePrometheus(new(strings.Builder), []byte("{")); err == nil {
		t.Error("half an object is taken")
	}
}
