package portmap

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
)

var server = netip.AddrPortFrom(testGateway, serverPort)

// TestOnlyTheGatewayAnswers: garbage, strangers and answers to other requests
// do not make a mapping, nor keep the right one from being seen.
func TestOnlyTheGatewayAnswers(t *testing.T) {
	v := vectors(t)
	stranger := netip.MustParseAddrPort("192.168.1.66:5351")
	otherPort := netip.AddrPortFrom(testGateway, 5350)
	other := func(name string, at int, b ...byte) []byte {
		return append(append(v[name][:at:at], b...), v[name][at+len(b):]...)
	}
	for name, noise := range map[string][]reply{
		"stranger":         {{from: stranger, b: v["pmp-address"]}, {from: stranger, b: v["pmp-map"]}},
		"other port":       {{from: otherPort, b: v["pmp-address"]}, {from: otherPort, b: v["pmp-map"]}},
		"garbage":          {{from: server, b: []byte("x")}, {from: server, b: make([]byte, 2000)}, {from: server, b: []byte{0, 0x81}}},
		"echoed request":   {{from: server, b: v["pmp-map-query"]}},
		"another's port":   {{from: server, b: v["pmp-address"]}, {from: server, b: other("pmp-map", 8, 0, 99)}},
		"external port 0":  {{from: server, b: v["pmp-address"]}, {from: server, b: other("pmp-map", 10, 0, 0)}},
		"lifetime 0":       {{from: server, b: v["pmp-address"]}, {from: server, b: other("pmp-map", 12, 0, 0, 0, 0)}},
		"only the address": {{from: server, b: v["pmp-address"]}},
		"only the port":    {{from: server, b: v["pmp-map"]}},
		"flood":            flood(stranger, v["pmp-map"]),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var answers atomic.Pointer[[]reply]
				answers.Store(&noise)
				n := newFakeNetwork(func(to netip.AddrPort, b []byte) []reply {
					if to != server || b[0] != pmpVersion || len(b) != pmpMapQuerySize {
						return nil
					}
					return *answers.Load()
				})
				c := New(Config{Network: n})
				defer serve(t, c)()
				c.SetLocalPort(testPort)
				time.Sleep(10 * time.Minute)
				if a := c.Mapping().Get(); a.IsValid() {
					t.Fatalf("mapped to %v", a)
				}
				right := slices.Concat(noise, []reply{{server, v["pmp-address"], time.Millisecond}, {server, v["pmp-map"], time.Millisecond}})
				answers.Store(&right)
				if a := await(t, c, time.Hour, valid); a != granted {
					t.Errorf("mapped to %v, want %v", a, granted)
				}
			})
		})
	}
}

func flood(from netip.AddrPort, b []byte) (all []reply) {
	for range 60 {
		all = append(all, reply{from: from, b: b})
	}
	return all
}

// TestPCPAnswersAreChecked: RFC 6887 section 11.4; a nonce of another's, a
// mapping of TCP, or no address is not ours.
func TestPCPAnswersAreChecked(t *testing.T) {
	v := vectors(t)
	for name, tt := range map[string]struct {
		spoil func(answer []byte)
		ok    bool
	}{
		"right":      {func([]byte) {}, true},
		"nonce":      {func(b []byte) { b[24] ^= 1 }, false},
		"TCP":        {func(b []byte) { b[36] = 6 }, false},
		"other port": {func(b []byte) { b[41]++ }, false},
		"no address": {func(b []byte) { clear(b[56:60]) }, false},
		"lifetime 0": {func(b []byte) { clear(b[4:8]) }, false},
		"port 0":     {func(b []byte) { clear(b[42:44]) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nonces := make(map[nonce]bool)
				n := newFakeNetwork(func(to netip.AddrPort, b []byte) []reply {
					switch {
					case to != server || b[0] != pcpVersion:
						return nil
					case len(b) == pcpHeaderSize:
						return []reply{{from: server, b: v["pcp-announced"]}}
					}
					nonces[nonce(b[24:36])] = true
					a := append([]byte(nil), v["pcp-map"]...)
					copy(a[24:36], b[24:36])
					tt.spoil(a)
					return []reply{{from: server, b: a}}
				})
				c := New(Config{Network: n})
				stop := serve(t, c)
				defer stop()
				probeNow(t, c)
				c.SetLocalPort(testPort)
				time.Sleep(3 * time.Hour)
				if a := c.Mapping().Get(); a.IsValid() != tt.ok {
					t.Errorf("mapped to %v", a)
				}
				stop()
				if len(nonces) != 1 { // PATH-102
					t.Errorf("%d nonces for one mapping", len(nonces))
				}
			})
		})
	}
}

// An igd is the UPnP side of a gateway.
type igd struct {
	description string            // file of testdata
	location    string            // as it says it
	fail        func(r call) int  // code of the fault for an action; 0 none
	status      map[string]string // by control path; default Connected
	public      map[string]string // by control path; default 203.0.113.7

	mu    sync.Mutex
	calls []call
}

// A call is an action as it came in.
type call struct {
	path, action string
	args         map[string]string
}

func (c call) String() string {
	return fmt.Sprint(c.action, "@", c.path, " ", c.args["NewExternalPort"], "->", c.args["NewInternalClient"], ":", c.args["NewInternalPort"], " ", c.args["NewLeaseDuration"])
}

var element = regexp.MustCompile(`<(New\w+)>([^<]*)</`)

func (g *igd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		b, err := os.ReadFile("testdata/" + g.description)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
		w.Write(b)
		return
	}
	body, _ := io.ReadAll(r.Body)
	c := call{path: r.URL.Path, args: make(map[string]string)}
	_, c.action, _ = strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
	for _, m := range element.FindAllStringSubmatch(string(body), -1) {
		c.args[m[1]] = m[2]
	}
	g.mu.Lock()
	g.calls = append(g.calls, c)
	g.mu.Unlock()
	fmt.Fprint(w, g.reply(w, c))
}

func (g *igd) reply(w http.ResponseWriter, c call) string {
	if g.fail != nil {
		if code := g.fail(c); code != 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return fmt.Sprintf(`<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
		}
	}
	value := ""
	or := func(m map[string]string, otherwise string) string {
		if v, ok := m[c.path]; ok {
			return v
		}
		return otherwise
	}
	switch c.action {
	case "GetStatusInfo":
		value = "<NewConnectionStatus>" + or(g.status, "Connected") + "</NewConnectionStatus>"
	case "GetExternalIPAddress":
		value = "<NewExternalIPAddress>" + or(g.public, "203.0.113.7") + "</NewExternalIPAddress>"
	case "AddAnyPortMapping":
		value = "<NewReservedPort>50000</NewReservedPort>"
	}
	return fmt.Sprintf(`<?xml version="1.0"?><s:Envelope xmlns:s="x"><s:Body><u:%sResponse xmlns:u="y">%s</u:%[1]sResponse></s:Body></s:Envelope>`, c.action, value)
}

// take returns the calls since the last time that are of the actions.
func (g *igd) take(actions ...string) (got []call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		for _, a := range actions {
			if c.action == a {
				got = append(got, c)
			}
		}
	}
	g.calls = nil
	return got
}

// network returns the network of a host behind g.
func (g *igd) network() *fakeNetwork {
	n := newFakeNetwork(func(to netip.AddrPort, b []byte) []reply {
		if to != netip.AddrPortFrom(testGateway, ssdpPort) || !strings.Contains(string(b), "ssdp:all") {
			return nil
		}
		media := answerTo("urn:schemas-upnp-org:device:MediaServer:1", "http://192.168.1.5/d.xml")
		return []reply{
			{netip.MustParseAddrPort("192.168.1.5:1900"), media, time.Millisecond},
			{netip.AddrPortFrom(testGateway, 40000), answerTo(igd1, g.location), 2 * time.Millisecond},
		}
	})
	n.web = g
	return n
}

const add, addAny = "AddPortMapping", "AddAnyPortMapping"

// TestUPnP: the whole procedure of PATH-103 with each version of a gateway.
func TestUPnP(t *testing.T) {
	for name, tt := range map[string]struct{ file, add, path, dials string }{
		"version 1": {"igd1.xml", add, "/ctl/IPConn", "192.168.1.1:5000"},
		"version 2": {"igd2.xml", addAny, "/ctl/IPConn", "192.168.1.1:5000"},
		"old":       {"urlbase.xml", add, "/upnp/control/WANPPP1", "192.168.1.1:49000"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// It says that it is elsewhere; only the gateway is asked.
				g := &igd{description: tt.file, location: "http://10.9.9.9:5000/rootDesc.xml"}
				n := g.network()
				c := New(Config{Network: n})
				stop := serve(t, c)
				defer stop()
				if r := probeNow(t, c); r != (Result{UPnP: true}) {
					t.Errorf("probe: %+v", r)
				}
				c.SetLocalPort(testPort)
				a := await(t, c, 5*time.Second, valid)
				added := g.take(tt.add)
				if len(added) != 1 || added[0].path != tt.path {
					t.Fatalf("calls %v", added)
				}
				checkMapping(t, added[0], a)
				time.Sleep(time.Hour)
				synctest.Wait()
				if again := g.take(tt.add); len(again) != 1 || again[0].args["NewExternalPort"] != fmt.Sprint(a.Port()) {
					t.Errorf("after an hour %v, want a renewal of %v", again, a)
				}
				stop()
				if gone := g.take("DeletePortMapping"); len(gone) != 1 || gone[0].args["NewExternalPort"] != fmt.Sprint(a.Port()) || gone[0].args["NewProtocol"] != "UDP" {
					t.Errorf("at the end %v", gone)
				}
				for _, d := range n.dials {
					if d != tt.dials && d != "192.168.1.1:5000" {
						t.Errorf("dialled %q", d)
					}
				}
			})
		})
	}
}

func checkMapping(t *testing.T, c call, external netip.AddrPort) {
	t.Helper()
	for name, want := range map[string]string{
		"NewRemoteHost": "", "NewProtocol": "UDP", "NewInternalPort": "41641", "NewInternalClient": "192.168.1.10",
		"NewEnabled": "1", "NewLeaseDuration": "7200", "NewPortMappingDescription": "tsnode",
	} {
		if got, ok := c.args[name]; !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if external.Addr() != testPublic || external.Port() < 1024 {
		t.Errorf("mapped to %v", external)
	}
}

// TestUPnPFaults: what gateways refuse has another way, or none.
func TestUPnPFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fail  func(call) int
		ok    bool
		calls int // of AddPortMapping
		last  func(call) bool
	}{
		"only permanent leases": {
			func(c call) int { return cond(c.action == add && c.args["NewLeaseDuration"] != "0", 725) },
			true, 2, func(c call) bool { return c.args["NewLeaseDuration"] == "0" }},
		"invalid arguments": {
			func(c call) int { return cond(c.action == add && c.args["NewLeaseDuration"] != "0", 402) },
			true, 2, func(c call) bool { return c.args["NewLeaseDuration"] == "0" }},
		"same port wanted": {
			func(c call) int { return cond(c.action == add && c.args["NewExternalPort"] != "41641", 724) },
			true, 2, func(c call) bool { return c.args["NewExternalPort"] == "41641" }},
		"all taken":      {func(c call) int { return cond(c.action == add, 718) }, false, maxPortTries, nil},
		"not authorized": {func(c call) int { return cond(c.action == add, 606) }, false, 1, nil},
		"no address":     {func(c call) int { return cond(c.action == "GetExternalIPAddress", 501) }, false, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &igd{description: "igd1.xml", location: "http://192.168.1.1:5000/d.xml", fail: tt.fail}
				c := New(Config{Network: g.network()})
				defer serve(t, c)()
				probeNow(t, c)
				c.SetLocalPort(testPort)
				time.Sleep(10 * time.Second)
				calls := g.take(add)
				if c.Mapping().Get().IsValid() != tt.ok || len(calls) != tt.calls || tt.last != nil && !tt.last(calls[len(calls)-1]) {
					t.Errorf("mapped to %v by %v", c.Mapping().Get(), calls)
				}
			})
		})
	}
}

func cond(fails bool, code int) int {
	if fails {
		return code
	}
	return 0
}

// TestUPnPChoosesTheConnectedService: of several, one that is up and has a
// public address (PATH-103).
func TestUPnPChoosesTheConnectedService(t *testing.T) {
	const v2, v1 = "/ctl/IPConn", "/ctl/IPConn1"
	for name, tt := range map[string]struct {
		status, public map[string]string
		want           string
	}{
		"both":          {nil, nil, addAny + v2},
		"second is up":  {map[string]string{v2: "Disconnected"}, nil, add + v1},
		"public second": {nil, map[string]string{v2: "10.0.0.1"}, add + v1},
		"any address":   {nil, map[string]string{v2: "x", v1: "10.0.0.1"}, add + v1},
		"up at least":   {map[string]string{v2: "Down", v1: "Up"}, map[string]string{v1: "203.0.113.9"}, add + v1},
		"none is up":    {map[string]string{v2: "Down", v1: "Down"}, nil, addAny + v2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &igd{description: "igd2.xml", location: "http://192.168.1.1:5000/d.xml", status: tt.status, public: tt.public}
				c := New(Config{Network: g.network()})
				defer serve(t, c)()
				c.SetLocalPort(testPort)
				await(t, c, 5*time.Second, valid)
				if calls := g.take(add, addAny); len(calls) != 1 || calls[0].action+calls[0].path != tt.want {
					t.Errorf("used %v, want %s", calls, tt.want)
				}
			})
		})
	}
}

// TestUPnPMovedDescription: a gateway that has restarted elsewhere is found
// again, though it was seen a moment ago.
func TestUPnPMovedDescription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &igd{description: "missing.xml", location: "http://192.168.1.1:5000/d.xml"}
		c := New(Config{Network: g.network()})
		defer serve(t, c)()
		probeNow(t, c)
		g.description = "igd1.xml"
		c.SetLocalPort(testPort)
		await(t, c, 5*time.Second, valid)
	})
}

// TestUPnPSwitchedOff: nothing is searched for, and a gateway that could is
// not asked.
func TestUPnPSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &igd{description: "igd1.xml", location: "http://192.168.1.1:5000/d.xml"}
		n := g.network()
		c := New(Config{Network: n, NoUPnP: func() bool { return true }})
		defer serve(t, c)()
		c.SetLocalPort(testPort)
		if r := probeNow(t, c); r != (Result{}) {
			t.Errorf("probe: %+v", r)
		}
		time.Sleep(time.Hour)
		if n.count(ssdpPort) != 0 || len(n.dials) != 0 || n.count(serverPort) == 0 {
			t.Errorf("%d searches, dials %v", n.count(ssdpPort), n.dials)
		}
	})
}

// TestRoutes: the gateway must be a home router's, and this host's address
// towards it known (PATH-96).
func TestRoutes(t *testing.T) {
	eth0 := []host.Interface{
		{Name: "lo", Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("172.16.0.5/24"), netip.MustParsePrefix("192.168.1.10/24")}},
	}
	for _, tt := range []struct {
		name        string
		gateway, by string
		want        string
	}{
		{"source told", "192.168.1.1", "192.168.1.20", "192.168.1.20"},
		{"address of the gateway's network", "192.168.1.1", "", "192.168.1.10"},
		{"another address", "10.0.0.1", "", "172.16.0.5"},
		{"public gateway", "203.0.113.1", "203.0.113.2", ""},
		{"carrier's", "100.64.0.1", "100.64.0.2", ""},
		{"IPv6", "fe80::1", "", ""},
		{"point to point", "", "192.168.1.10", ""},
	} {
		n := &interfacesNetwork{fakeNetwork: newFakeNetwork(nil), all: eth0}
		n.route = host.Route{Interface: "eth0"}
		if tt.gateway != "" {
			n.route.Gateway = netip.MustParseAddr(tt.gateway)
		}
		if tt.by != "" {
			n.route.Source = netip.MustParseAddr(tt.by)
		}
		r := New(Config{Network: n}).findRoute()
		if got := r.own; r.valid() != (tt.want != "") || r.valid() && got.String() != tt.want {
			t.Errorf("%s: %v, want own address %q", tt.name, r, tt.want)
		}
	}
}

type interfacesNetwork struct {
	*fakeNetwork
	all []host.Interface
}

func (n *interfacesNetwork) Interfaces() ([]host.Interface, error) { return n.all, nil }
