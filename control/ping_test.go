package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// ping sends a ping request on the map stream.
func ping(p *testPoll, r *PingRequest) { p.send(&MapResponse{PingRequest: r}) }

func TestLivenessPings(t *testing.T) { // CTL-59, CTL-70
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		for _, r := range []*PingRequest{
			{URL: "https://unused/ping/1", URLIsNoise: true},
			{URL: testURL + "/ping/2"},
			{URL: testURL + "/ping/3", Log: true},
		} {
			ping(p, r)
			c := <-tc.other
			u, _ := url.Parse(r.URL)
			if c.method != http.MethodHead || c.path != u.Path {
				t.Errorf("%s: %s %s", r.URL, c.method, c.path)
			}
			c.answer <- func(w http.ResponseWriter) {}
		}
		dials := len(tc.network.dialed())
		ping(p, &PingRequest{URL: testURL + "/ping/3"}) // again
		ping(p, &PingRequest{URL: ""})
		ping(p, &PingRequest{URL: "http://169.254.169.254/latest/meta-data"})
		ping(p, &PingRequest{URL: "file:///etc/passwd"})
		ping(p, &PingRequest{URL: "://"})
		synctest.Wait()
		if n := len(tc.network.dialed()); n != dials {
			t.Errorf("%d connections for pings that must not be answered", n-dials)
		}
		// A redirect is not followed.
		ping(p, &PingRequest{URL: testURL + "/ping/4"})
		c := <-tc.other
		c.answer <- func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://169.254.169.254/")
			w.WriteHeader(http.StatusFound)
		}
		synctest.Wait()
		if d := tc.network.dialed(); d[len(d)-1] != "127.0.0.1:8080" {
			t.Errorf("dialed %q", d)
		}
		// The map goes on whatever pings do.
		p.send(&MapResponse{Domain: "other"})
		synctest.Wait()
		if tc.Netmap.Get().Domain != "other" {
			t.Error("the map stopped")
		}
	})
}

func TestPingsAreLimited(t *testing.T) { // CTL-67
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		for i := range 3 * pingBurst {
			ping(p, &PingRequest{URL: fmt.Sprintf("%s/ping/%d", testURL, i), URLIsNoise: true})
		}
		n := 0
		for done := false; !done; {
			synctest.Wait()
			select {
			case c := <-tc.other:
				n++
				c.answer <- func(http.ResponseWriter) {}
			default:
				done = true
			}
		}
		if n != maxPings {
			t.Errorf("%d pings at once, want %d", n, maxPings)
		}
	})
}

// A scriptedPinger answers pings by kind.
type scriptedPinger map[string]PingResponse

func (s scriptedPinger) Ping(ctx context.Context, to netip.Addr, kind string) (PingResponse, error) {
	if kind == "panic" {
		panic("not of the stream")
	}
	r, ok := s[kind]
	if !ok {
		<-ctx.Done()
		return r, ctx.Err()
	}
	r.IP = to.String()
	return r, nil
}

func TestTypedPings(t *testing.T) { // CTL-60
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, func(c *Config, _ *testClient) {
			c.Pinger = scriptedPinger{PingDisco: {Endpoint: "192.0.2.1:1", LatencySeconds: 0.5}, PingTSMP: {PeerAPIPort: 9}}
		})
		p := tc.running()
		peer := netip.MustParseAddr("100.64.0.2")
		ping(p, &PingRequest{URL: "https://unused/ping/1", URLIsNoise: true, Types: "disco,TSMP", IP: peer})
		for _, want := range []PingResponse{
			{Type: "disco", IP: "100.64.0.2", Endpoint: "192.0.2.1:1", LatencySeconds: 0.5},
			{Type: "TSMP", IP: "100.64.0.2", PeerAPIPort: 9},
		} {
			c := <-tc.other
			var got PingResponse
			if err := json.Unmarshal(c.body, &got); err != nil || got != want || c.method != http.MethodPost {
				t.Errorf("%s %s: %v, want %+v", c.method, c.body, err, want)
			}
			c.answer <- func(http.ResponseWriter) {}
		}
		ping(p, &PingRequest{URL: "https://unused/ping/2", URLIsNoise: true, Types: "ICMP", IP: peer}) // never answered
		ping(p, &PingRequest{URL: "https://unused/ping/3", URLIsNoise: true, Types: "disco"})          // no IP
		ping(p, &PingRequest{URL: "https://unused/ping/4", URLIsNoise: true, Types: "panic", IP: peer})
		time.Sleep(time.Minute)
		select {
		case c := <-tc.other:
			t.Errorf("a failed ping was reported: %s", c.body)
		default:
		}
		if got := tc.Status.Get(); !got.Connected {
			t.Errorf("status = %+v", got)
		}
	})
}

func TestC2N(t *testing.T) { // CTL-61
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, func(c *Config, _ *testClient) {
			c.C2N = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
		})
		p := tc.running()
		ping(p, &PingRequest{
			URL: "https://unused/machine/c2n/1", Types: PingC2N, // inside Noise although URLIsNoise is false
			Payload: []byte("POST /echo HTTP/1.1\r\nHost: unused\r\nContent-Length: 5\r\n\r\nhello"),
		})
		c := <-tc.other
		if want := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"; c.method != http.MethodPost || c.path != "/machine/c2n/1" || string(c.body) != want {
			t.Errorf("%s %s %q, want %q", c.method, c.path, c.body, want)
		}
		c.answer <- func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }
	})
}

func TestAnswerC2N(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
			http.Error(w, r.Context().Err().Error(), http.StatusGatewayTimeout)
		case "/big":
			for range 3 {
				if _, err := w.Write(make([]byte, maxC2NBody)); err != nil {
					return
				}
			}
		default:
			w.Header().Set("X-Path", r.URL.Path)
		}
	})
	for name, test := range map[string]struct {
		request string
		handler http.Handler
		want    string
	}{
		"echo":              {"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", nil, "200 OK\r\nContent-Length: 2\r\n\r\nhi"},
		"no handler":        {"GET /debug/goroutines HTTP/1.1\r\nHost: x\r\n\r\n", nil, "unknown c2n path"},
		"handler":           {"GET /vip-services HTTP/1.1\r\nHost: x\r\n\r\n", handler, "X-Path: /vip-services"},
		"remote control":    {"GET /remoteapi/localapi/v0/prefs HTTP/1.1\r\nHost: x\r\n\r\n", handler, "403 Forbidden"},
		"update":            {"POST /update HTTP/1.1\r\nHost: x\r\n\r\n", handler, "403 Forbidden"},
		"timeout":           {"GET /slow HTTP/1.1\r\nHost: x\r\nC2n-Handler-Timeout: 7s\r\n\r\n", handler, "504"},
		"unbounded timeout": {"GET /slow HTTP/1.1\r\nHost: x\r\nC2n-Handler-Timeout: 700h\r\n\r\n", handler, "504"},
		"big":               {"GET /big HTTP/1.1\r\nHost: x\r\n\r\n", handler, "Content-Length: 1048576"},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			got, err := answerC2N(t.Context(), []byte(test.request), test.handler)
			if err != nil || !strings.Contains(string(got), test.want) {
				t.Errorf("%s: %.200q, %v, want %q in it", name, got, err, test.want)
			}
			if took := time.Since(begin); took > c2nTimeout || name == "timeout" && took != 7*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
		})
	}
	for _, bad := range []string{"", "GET", "GET / HTTP/1.1\r\n", "\x00\x01"} {
		if _, err := answerC2N(t.Context(), []byte(bad), nil); err == nil {
			t.Errorf("%q was answered", bad)
		}
	}
}

func FuzzAnswerC2N(f *testing.F) {
	f.Add([]byte("POST /echo HTTP/1.1\r\nHost: unused\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("GET /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := answerC2N(t.Context(), payload, nil)
		if err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 ") {
			t.Errorf("answer %q", b)
		}
	})
}

func TestStreamEvents(t *testing.T) { // CTL-42, CTL-43
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		exit := 1
		p.send(&MapResponse{PopBrowserURL: "http://127.0.0.1:8080/page", Debug: &Debug{Exit: &exit}, ControlDialPlan: &DialPlan{}})
		synctest.Wait()
		if got := tc.Status.Get(); got.BrowserURL != "http://127.0.0.1:8080/page" {
			t.Errorf("status = %+v", got)
		}
		if tc.link.dialer.plan.Get() == nil {
			t.Error("the dial plan was not kept (CTL-10)")
		}
		p.sendRaw(`{"PopBrowserURL":"file:///etc/passwd","DisplayMessages":{"a":{"Title":"A","PrimaryAction":{"URL":"javascript:x"}}}}`)
		synctest.Wait()
		if got := tc.Status.Get(); got.BrowserURL != "http://127.0.0.1:8080/page" || tc.Netmap.Get().Messages["a"].PrimaryAction != nil {
			t.Errorf("status = %+v, a bad URL was taken", got)
		}
		// Sleeps as asked, for five minutes at most, and the watchdog sleeps, too.
		for _, test := range []struct {
			seconds float64
			want    time.Duration
		}{{200, 200 * time.Second}, {1e9, maxSleep}, {-1, 0}} {
			p.send(&MapResponse{Debug: &Debug{SleepSeconds: test.seconds}})
			begin := time.Now()
			p.send(&MapResponse{Domain: fmt.Sprint("after ", test.seconds)})
			_, changed := tc.Netmap.Load()
			for tc.Netmap.Get().Domain != fmt.Sprint("after ", test.seconds) {
				<-changed
				_, changed = tc.Netmap.Load()
			}
			if d := time.Since(begin); d != test.want {
				t.Errorf("sleep of %v took %v, want %v", test.seconds, d, test.want)
			}
		}
	})
}

func TestKeepAliveCarriesLittle(t *testing.T) { // CTL-32
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		p := tc.running()
		before := tc.Netmap.Get()
		p.sendRaw(`{"KeepAlive":true,"Domain":"x","Peers":[{"ID":9}],"Node":null}`)
		synctest.Wait()
		if tc.Netmap.Get() != before {
			t.Errorf("a keep-alive has changed the netmap: %+v", tc.Netmap.Get())
		}
		p.send(&MapResponse{KeepAlive: true, ControlTime: time.Now().Add(time.Hour)})
		synctest.Wait()
		if got := tc.Netmap.Get().ClockOffset; got < 59*time.Minute {
			t.Errorf("clock offset %v", got)
		}
	})
}

func TestSessionResume(t *testing.T) { // control.md section 8.8
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := tc.accepts()
		p := <-tc.mapPolls
		if p.MapSessionHandle != "" {
			t.Errorf("handle %q", p.MapSessionHandle)
		}
		p.send(&MapResponse{MapSessionHandle: "h1", Seq: 4, Node: selfNode(c.NodeKey), Peers: []*Node{peerNode(2)}})
		p.send(&MapResponse{Seq: 5, PeersChanged: []*Node{peerNode(3)}})
		p.end()
		p = <-tc.mapPolls
		if p.MapSessionHandle != "h1" || p.MapSessionSeq != 5 {
			t.Errorf("resumes %q at %d, want h1 at 5", p.MapSessionHandle, p.MapSessionSeq)
		}
		p.send(&MapResponse{MapSessionHandle: "h1", Seq: 6, PeersChanged: []*Node{peerNode(4)}})
		synctest.Wait()
		if got := ids(tc.Netmap.Get()); len(got) != 3 {
			t.Errorf("peers %v, want those of before, too", got)
		}
		p.end()
		p = <-tc.mapPolls
		p.send(&MapResponse{MapSessionHandle: "h2", Node: selfNode(c.NodeKey)})
		synctest.Wait()
		if got := ids(tc.Netmap.Get()); len(got) != 0 {
			t.Errorf("peers %v, want none in a new session", got)
		}
	})
}

func TestBigFrameDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		c := tc.accepts()
		p := <-tc.mapPolls
		const many = 20_000
		var peers []*Node
		for i := range netmap.NodeID(many) {
			n := peerNode(i + 2)
			n.CapMap = netmap.CapMap{strings.Repeat("x", 500): nil}
			peers = append(peers, n)
		}
		p.send(&MapResponse{Node: selfNode(c.NodeKey), Peers: peers})
		synctest.Wait()
		if n := len(tc.Netmap.Get().Peers); n != many {
			t.Errorf("%d peers, want %d", n, many)
		}
	})
}

func TestURLsFromControl(t *testing.T) { // CTL-43
	for _, test := range []struct {
		control, url string
		ok           bool
	}{
		{"https://hs.example.org", "https://hs.example.org/register/x", true},
		{"https://hs.example.org", "https://login.example.net/x", true},
		{"https://hs.example.org", "http://hs.example.org/x", false},
		{"http://hs.example.org", "http://hs.example.org/x", true},
		{"https://controlplane.tailscale.com", "https://login.tailscale.com/a/1", true},
		{"https://controlplane.tailscale.com", "https://tailscale.com.evil.org/a/1", false},
		{"https://controlplane.tailscale.com", "https://eviltailscale.com/a/1", false},
		{"https://hs.example.org", "javascript:alert(1)", false},
		{"https://hs.example.org", "https:///x", false},
		{"https://hs.example.org", "", false},
		{"https://hs.example.org", "https://a b/", false},
	} {
		u, err := url.Parse(test.control)
		if err != nil {
			t.Fatal(err)
		}
		if err := (&Client{url: u}).checkURL(test.url); (err == nil) != test.ok {
			t.Errorf("%s gives %q: %v", test.control, test.url, err)
		}
	}
}
