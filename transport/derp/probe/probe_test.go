package probe

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

func names(steps []Step) []string {
	var ns []string
	for _, s := range steps {
		ns = append(ns, s.Name)
	}
	return ns
}

// TestHealthy: DERP-168: a relay that is all right passes every step, and the
// report says what was seen.
func TestHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		st := w.addRelay("relay", relayConfig{})
		c := w.config(st.url)
		c.WebSocket, c.Bandwidth.Bytes = true, 1<<20
		r, err := Run(t.Context(), c)
		if err != nil || !r.OK() {
			t.Fatalf("%v, report:\n%v", err, r)
		}
		x := r.Relays[0]
		want := []string{StepSTUN, StepConnect, StepProbe, StepPortal, StepWebSocket, StepLogin, StepSend, StepBandwidth}
		if got := names(x.Steps); !reflect.DeepEqual(got, want) {
			t.Errorf("steps %v, want %v", got, want)
		}
		if x.ServerKey != st.PublicKey() {
			t.Errorf("server key %v, want %v", x.ServerKey, st.PublicKey())
		}
		if x.STUNAddr.Addr() != w.here.Addr4() {
			t.Errorf("STUN says we are %v, want %v", x.STUNAddr, w.here.Addr4())
		}
		if left := time.Until(x.TLS.Expires); x.TLS.Version != "TLS 1.3" || !x.TLS.FastStart || x.TLS.Pinned || left < 89*24*time.Hour || left > 90*24*time.Hour {
			t.Errorf("TLS %+v, expires in %v", x.TLS, left)
		}
		if f := x.Bandwidth; f.Packets != 749 || f.Lost != 0 || f.Bytes != 749*1400 { // 1 MiB in packets of 1400 bytes
			t.Errorf("bandwidth %+v", f)
		}
		synctest.Wait()
		if n := st.Stats().Connections; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestHealthyOnMap: the relays of a DERP map, one with its certificate pinned
// and no STUN, one that is STUN only.
func TestHealthyOnMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.addRelay("a", relayConfig{noSTUN: true})
		w.addRelay("b", relayConfig{})
		c := w.config()
		c.Map = &netmap.DERPMap{Regions: map[int]*netmap.Region{
			2: {RegionID: 2, Nodes: []*netmap.DERPNode{{Name: "2b", HostName: "b.example.com"}, {Name: "2s", HostName: "s.example.com", STUNOnly: true}}},
			1: {RegionID: 1, Nodes: []*netmap.DERPNode{{Name: "1a", HostName: "a.example.com", STUNPort: -1}}},
			3: nil,
		}}
		c.Mesh = true // no region has two
		r, err := Run(t.Context(), c)
		if err != nil || !r.OK() {
			t.Fatalf("%v, report:\n%v", err, r)
		}
		if len(r.Relays) != 2 || r.Relays[0].Name != "1a" || r.Relays[1].Name != "2b" || len(r.Pairs) != 0 {
			t.Errorf("report:\n%v", r)
		}
	})
}

// TestBroken: DERP-168: each kind of failure fails its step, with the reason,
// in bounded time.
func TestBroken(t *testing.T) {
	recv := func(f func(payload []byte) []byte) func(derp.FrameType, []byte) []byte {
		return func(t derp.FrameType, payload []byte) []byte {
			if t == derp.FrameRecvPacket {
				return f(payload)
			}
			return payload
		}
	}
	path := func(path string, f http.HandlerFunc) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", h)
			mux.Handle(path, f)
			return mux
		}
	}
	n := 0 // packets since the last subtest
	for name, c := range map[string]struct {
		relay      relayConfig
		step, text string
	}{
		"corrupts": {relayConfig{plain: true, frames: recv(func(b []byte) []byte { b[len(b)-1] ^= 1; return b })},
			StepSend, "arrived changed"},
		"forges the source": {relayConfig{plain: true, frames: recv(func(b []byte) []byte { b[0] ^= 1; return b })},
			StepSend, "with the source"},
		"drops": {relayConfig{plain: true, frames: recv(func([]byte) []byte { return nil })},
			StepSend, "none of 3 packets arrived"},
		"drops some under load": {relayConfig{plain: true, frames: recv(func(b []byte) []byte {
			if n++; n%100 == 50 {
				return nil
			}
			return b
		})}, StepBandwidth, "of 749 packets are lost"},
		"drops all after a while": {relayConfig{plain: true, frames: recv(func(b []byte) []byte {
			if n++; n > 100 {
				return nil
			}
			return b
		})}, StepBandwidth, "nothing arrived for 2s"},
		"lengthens some": {relayConfig{plain: true, frames: recv(func(b []byte) []byte {
			if n++; n > 100 {
				return append(b, 0)
			}
			return b
		})}, StepBandwidth, "with 1401 bytes, want 1400"},
		"does not begin with the ServerInfo": {relayConfig{plain: true, frames: func(t derp.FrameType, b []byte) []byte {
			if t == derp.FrameServerInfo {
				return nil
			}
			return b
		}}, StepLogin, "after the login"},
		"admits nobody": {relayConfig{options: relay.Options{Verify: func(context.Context, relay.Candidate) error { return errors.New("no") }}},
			StepLogin, "after the login"},
		"has no STUN":         {relayConfig{noSTUN: true}, StepSTUN, "no answer within 2s"},
		"certificate expired": {relayConfig{expired: time.Hour}, StepConnect, "expired"},
		"is down":             {relayConfig{down: true}, StepConnect, "refused"},
		"probe without CORS":  {relayConfig{handler: path("/derp/probe", func(http.ResponseWriter, *http.Request) {})}, StepProbe, "Access-Control-Allow-Origin"},
		"probe with a body":   {relayConfig{handler: path("/derp/probe", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("x")) })}, StepProbe, "body of 1 bytes"},
		"ignores the challenge": {relayConfig{handler: path("/generate_204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })},
			StepPortal, "X-Tailscale-Response"},
		"answers like a portal": {relayConfig{handler: path("/generate_204", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("log in")) })},
			StepPortal, "status 200"},
		"DERP is another page": {relayConfig{plain: true, handler: path("/derp", http.NotFound)}, StepLogin, "404"},
		"no WebSocket":         {relayConfig{handler: refuseWebSocket}, StepWebSocket, "501"},
		"hangs before upgrade": {relayConfig{plain: true, handler: path("/derp", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}, StepLogin, "not done after 10s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n = 0
				w := newWorld(t)
				cfg := w.config(w.addRelay("relay", c.relay).url)
				cfg.WebSocket, cfg.Bandwidth.Bytes = c.step == StepWebSocket, 1<<20
				r, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if r.OK() {
					t.Fatalf("nothing was found:\n%v", r)
				}
				if bad := r.Failures(); len(bad) != 1 || !strings.Contains(bad[0], ": "+c.step+": ") || !strings.Contains(bad[0], c.text) {
					t.Errorf("failures %q, want one of %s with %q", bad, c.step, c.text)
				}
				if limit := time.Minute.Seconds(); r.Seconds > limit {
					t.Errorf("took %v s", r.Seconds)
				}
			})
		})
	}
}

// refuseWebSocket serves everything but WebSocket.
func refuseWebSocket(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			http.Error(w, "no", http.StatusNotImplemented)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// TestUnreachable: DERP-168: a relay behind a cut link takes no longer than the
// steps that there are.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		st := w.addRelay("relay", relayConfig{})
		st.host.SetLink(simnet.Conditions{Down: true})
		r, err := Run(t.Context(), w.config(st.url))
		if err != nil || len(r.Failures()) != 2 {
			t.Fatalf("%v, failures %q", err, r.Failures())
		}
		if r.Seconds > 5 {
			t.Errorf("took %v s", r.Seconds)
		}
	})
}

// TestMeshPairs: DERP-168: packets between relays that are not joined do not
// arrive, and the report says between which.
func TestMeshPairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.addRelay("a", relayConfig{}), w.addRelay("b", relayConfig{})
		c := w.config(a.url, b.url)
		c.Mesh = true
		r, err := Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{a.url + "/derp to " + b.url + "/derp: send: none of 3 packets arrived, with 1s for each",
			b.url + "/derp to " + a.url + "/derp: send: none of 3 packets arrived, with 1s for each"}
		if got := r.Failures(); !reflect.DeepEqual(got, want) {
			t.Errorf("failures %q, want %q", got, want)
		}
	})
}

// TestMeshedPairs: DERP-168: between relays that are joined packets arrive, also
// those of a prober that holds the mesh key.
func TestMeshedPairs(t *testing.T) {
	for name, hold := range map[string]bool{"ordinary client": false, "with the mesh key": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				k := key.NewMesh()
				a, b := w.addRelay("a", relayConfig{options: relay.Options{MeshKey: k}}), w.addRelay("b", relayConfig{options: relay.Options{MeshKey: k}})
				w.link(a, b, k)
				w.link(b, a, k)
				c := w.config(a.url, b.url)
				c.Mesh = true
				if hold {
					c.MeshKey = k
				}
				r, err := Run(t.Context(), c)
				if err != nil || !r.OK() || len(r.Pairs) != 2 {
					t.Errorf("%v, report:\n%v", err, r)
				}
				if n := a.Stats().ForwardedOut.Total() + b.Stats().ForwardedOut.Total(); n != 2 {
					t.Errorf("%d packets between the relays, want 2", n)
				}
			})
		})
	}
}

// TestCancel: Run ends with its context, wherever it is.
func TestCancel(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Millisecond, 2500 * time.Millisecond, 7 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			hang := func(http.Handler) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			}
			st := w.addRelay("relay", relayConfig{plain: true, noSTUN: true, handler: hang})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if after == 0 {
				cancel()
			}
			stop := time.AfterFunc(max(after, 1), cancel)
			defer stop.Stop()
			start := time.Now()
			if r, err := Run(ctx, w.config(st.url)); !errors.Is(err, context.Canceled) || r == nil || r.OK() {
				t.Errorf("after %v: %v, %v", after, r, err)
			}
			if took := time.Since(start); took > after+time.Millisecond {
				t.Errorf("ended after %v, want %v", took, after)
			}
		})
	}
}

// TestConfig: what cannot be measured is said at once.
func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"nothing":      {Config{}, "nothing to measure"},
		"empty map":    {Config{Map: &netmap.DERPMap{}}, "nothing to measure"},
		"no URL":       {Config{URLs: []string{"relay"}}, "https://HOST/derp"},
		"another path": {Config{URLs: []string{"https://relay.example.com/elsewhere"}}, "want /derp"},
		"packet size":  {Config{URLs: []string{"https://relay.example.com"}, Bandwidth: Bandwidth{PacketSize: 7}}, "packet size"},
	} {
		if _, err := Run(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// TestReportForms: the report as text and as JSON.
func TestReportForms(t *testing.T) {
	r := &Report{
		Start: time.Unix(1e9, 0).UTC(), Seconds: 1.5,
		Relays: []*Relay{{
			Name: "1a", Region: 1, ServerKey: key.NewNode().Public(),
			Steps: []Step{{Name: StepConnect, OK: true, Detail: "TLS 1.3", Seconds: 0.0123}, {Name: StepSTUN, Error: "no answer", Seconds: 2}},
		}},
		Pairs: []*Pair{{From: "1a", To: "1b", Steps: []Step{{Name: StepSend, OK: true}}}},
	}
	want := "1a (region 1)\n" +
		"  connect      ok         12.3 ms  TLS 1.3\n" +
		"  stun         FAILED   2000.0 ms  no answer\n" +
		"1a to 1b\n" +
		"  send         ok          0.0 ms\n"
	if got := r.String(); got != want {
		t.Errorf("text:\n%s\nwant:\n%s", got, want)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(&back, r) {
		t.Errorf("JSON %s comes back as %+v, %v", b, back, err)
	}
}

// TestFlowRefuses: what a relay may not do to a stream of packets.
func TestFlowRefuses(t *testing.T) {
	k := key.NewNode().Public()
	for name, change := range map[string]func(f *flow, p *derp.ReceivedPacket){
		"another source":    func(_ *flow, p *derp.ReceivedPacket) { p.Source = key.NewNode().Public() },
		"cut":               func(_ *flow, p *derp.ReceivedPacket) { p.Data = p.Data[:7] },
		"changed":           func(_ *flow, p *derp.ReceivedPacket) { p.Data[15] ^= 1 },
		"number beyond all": func(f *flow, p *derp.ReceivedPacket) { p.Data = f.packet(99) },
		"not sent yet":      func(f *flow, p *derp.ReceivedPacket) { p.Data = f.packet(5) },
		"again":             func(f *flow, _ *derp.ReceivedPacket) { f.next = 3 },
	} {
		f := &flow{a: &client{key: k}, packets: 10, size: 16, credit: make(chan struct{}, inFlight)}
		for range 3 {
			f.credit <- struct{}{}
		}
		p := derp.ReceivedPacket{Source: k, Data: f.packet(2)}
		change(f, &p)
		if err := f.onPacket(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
