package netcheck

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// port80 lets all relays of a map be asked on port 80.
func port80(dm *netmap.DERPMap) *netmap.DERPMap {
	for _, r := range dm.Regions {
		r.Nodes[0].CanPort80 = true
	}
	return dm
}

// genuine answers as a relay does.
func genuine(w http.ResponseWriter, r *http.Request) {
	if c := r.Header.Get("X-Tailscale-Challenge"); c != "" {
		w.Header().Set("X-Tailscale-Response", "response "+c)
	}
	w.WriteHeader(http.StatusNoContent)
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// TestDetectCaptive tells portals from servers (NC-50, NC-63).
func TestDetectCaptive(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []http.HandlerFunc // of relays 1, 2, ...; nil hangs
		control http.HandlerFunc
		want    bool
	}{
		{"relay", []http.HandlerFunc{genuine}, nil, false},
		{"our relay", []http.HandlerFunc{relay.New(key.NewNode(), relay.Options{}).Handler().ServeHTTP}, nil, false},
		{"page", []http.HandlerFunc{status(200)}, nil, true},
		{"redirect", []http.HandlerFunc{status(302, "Location", "http://portal.example/")}, nil, true},
		{"no echo", []http.HandlerFunc{status(204)}, nil, true},
		{"wrong echo", []http.HandlerFunc{status(204, "X-Tailscale-Response", "response ts_192.0.2.9")}, nil, true},
		{"nobody", []http.HandlerFunc{nil}, nil, false},
		{"one page of several", []http.HandlerFunc{genuine, nil, status(200)}, nil, true},
		{"control", []http.HandlerFunc{nil}, status(204), false},
		{"control page", []http.HandlerFunc{nil}, status(200), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(eth4)
				for i, h := range c.answers {
					if h != nil {
						w.web[v4Of(i+1).String()+":80"] = h
					}
				}
				check := PortalCheck{Network: w, Map: port80(literals(len(c.answers)))}
				if c.control != nil {
					w.web["control.example:80"] = c.control
					check.ControlHosts = []string{"control.example"}
				}
				begin := time.Now()
				got, err := DetectCaptive(t.Context(), check)
				if err != nil || got != c.want {
					t.Errorf("captive %v, %v; want %v", got, err, c.want)
				}
				if took := time.Since(begin); took > portalTimeout || got && took != 0 {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestPortalRequest sends what relays expect and caches respect (NC-49).
func TestPortalRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		got := make(chan *http.Request, 1)
		w.web["192.0.2.1:80"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got <- r
			genuine(w, r)
		})
		if captive, err := DetectCaptive(t.Context(), PortalCheck{Network: w, Map: port80(literals(1))}); captive || err != nil {
			t.Fatalf("captive %v, %v", captive, err)
		}
		r := <-got
		if r.Method != "GET" || r.URL.Path != "/generate_204" || r.Host != "192.0.2.1" || r.URL.Query().Get("t") == "" || !r.Close ||
			r.Header.Get("X-Tailscale-Challenge") != "ts_192.0.2.1" ||
			r.Header.Get("Cache-Control") != "no-cache, no-store, must-revalidate, no-transform, max-age=0" {
			t.Errorf("request %s %s of %s, close %v, header %v", r.Method, r.URL, r.Host, r.Close, r.Header)
		}
	})
}

func TestPortalEndpoints(t *testing.T) {
	dm := port80(literals(6))
	dm.Regions[1].Avoid = true
	dm.Regions[2].NoMeasureNoHome = true
	dm.Regions[3].Nodes[0].IPv4 = "none"
	dm.Regions[4].Nodes[0].CanPort80 = false
	check := PortalCheck{Map: dm, Home: 6, ControlHosts: []string{"control.example"}}
	var got []string
	for _, e := range check.endpoints() {
		got = append(got, e.host)
	}
	if d := cmp.Diff([]string{"192.0.2.6", "192.0.2.5", "control.example"}, got); d != "" {
		t.Errorf("endpoints (-want +got):\n%s", d)
	}
	check.Map = port80(literals(9))
	if n := len(check.endpoints()); n != portalEndpoints {
		t.Errorf("%d endpoints, want %d", n, portalEndpoints)
	}
}

// TestPortalNeedsInterface asks nobody where only tunnels and containers are
// (NC-51).
func TestPortalNeedsInterface(t *testing.T) {
	some := []netip.Prefix{netip.MustParsePrefix(eth4)}
	for _, c := range []struct {
		i    host.Interface
		want bool
	}{
		{host.Interface{Name: "wlan0", Addrs: some}, true},
		{host.Interface{Name: "wlan0"}, false},
		{host.Interface{Name: "lo", Loopback: true, Addrs: some}, false},
		{host.Interface{Name: "Docker0", Addrs: some}, false},
		{host.Interface{Name: "tailscale0", Addrs: some}, false},
		{host.Interface{Name: "wg1", Addrs: some}, false},
	} {
		if got := mayMeetPortal(c.i); got != c.want {
			t.Errorf("%s: %v, want %v", c.i.Name, got, c.want)
		}
	}
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.web["192.0.2.1:80"] = status(200)
		if captive, err := DetectCaptive(t.Context(), PortalCheck{Network: w, Map: port80(literals(1))}); captive || err != nil {
			t.Errorf("captive %v, %v without interfaces", captive, err)
		}
	})
}

func TestDetectCaptiveCancelled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := DetectCaptive(ctx, PortalCheck{Network: newWorld(eth4), Map: port80(literals(1))}); err == nil {
			t.Error("no error of a check that was cut off")
		}
	})
}

// TestPortalOfReports checks in full reports alone, and not where STUN tells
// enough (NC-47).
func TestPortalOfReports(t *testing.T) {
	for _, c := range []struct {
		name string
		stun []int // latencies of regions 1, 2, ... in ms
		o    Options
		want Tri
		took time.Duration
	}{
		{"blocked", nil, Options{}, True, stunTimeout + icmpTimeout},
		{"STUN alone", nil, Options{OnlySTUN: true}, Unknown, stunTimeout},
		{"quick answer", []int{10, 10}, Options{}, Unknown, 10 * time.Millisecond},
		{"slow answer", []int{250, 260}, Options{}, True, 260 * time.Millisecond},
		{"slow answer, hanging check", []int{250, 260}, Options{}, Unknown, 260 * time.Millisecond},
		{"hanging check of a thorough report", []int{250, 260}, Options{Thorough: true}, False, portalDelay + portalTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(eth4)
				w.serve4(public4, c.stun...)
				if c.want == True || c.o.OnlySTUN {
					w.web["192.0.2.1:80"] = status(200)
				}
				begin := time.Now()
				r := w.report(t, port80(literals(2)), c.o)
				if took := time.Since(begin); r.CaptivePortal != c.want || took != c.took {
					t.Errorf("captive portal %v after %v, want %v after %v", r.CaptivePortal, took, c.want, c.took)
				}
			})
		})
	}
}
