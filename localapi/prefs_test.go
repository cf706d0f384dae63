package localapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// SVC-135: what GET prefs shows of a node, and the defaults.
func TestPrefsShape(t *testing.T) {
	b, err := json.MarshalIndent(prefsOf(&Preferences{ControlURL: "https://control.test", AcceptDNS: true}, &Snapshot{State: Running}), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "prefs.json", string(b)+"\n")
}

// A change of preferences as clients send it: whole, with a mask.
func TestApply(t *testing.T) {
	ten, tags := netip.MustParsePrefix("10.0.0.0/8"), []string{"tag:a"}
	start := Preferences{
		ControlURL: "https://control.test", AcceptDNS: true, ExitNode: "n2", Hostname: "old",
		Tags: slices.Clone(tags), AdvertiseRoutes: []netip.Prefix{ten},
	}
	routes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), default4, default6}
	for _, tt := range []struct {
		name, body string
		want       func(*Preferences)
		err        string
	}{
		{"nothing", `{}`, func(*Preferences) {}, ""},
		{"a value without its mask", `{"ShieldsUp": true, "Hostname": "new"}`, func(*Preferences) {}, ""},
		{"several", `{"ShieldsUp": true, "ShieldsUpSet": true, "CorpDNS": false, "CorpDNSSet": true, "RouteAll": true, "RouteAllSet": true,
			"Hostname": "new", "HostnameSet": true, "ExitNodeAllowLANAccess": true, "ExitNodeAllowLANAccessSet": true}`,
			func(p *Preferences) {
				p.ShieldsUp, p.AcceptDNS, p.AcceptRoutes, p.Hostname, p.ExitNodeAllowLANAccess = true, false, true, "new", true
			}, ""},
		{"a mask without its value", `{"HostnameSet": true}`, func(*Preferences) {}, ""},
		{"exit node by ID", `{"ExitNodeID": "n9", "ExitNodeIDSet": true, "ExitNodeIP": "", "ExitNodeIPSet": true}`, func(p *Preferences) { p.ExitNode = "n9" }, ""},
		{"exit node by address", `{"ExitNodeID": "", "ExitNodeIDSet": true, "ExitNodeIP": "100.64.0.9", "ExitNodeIPSet": true}`, func(p *Preferences) { p.ExitNode = "100.64.0.9" }, ""},
		{"exit node, any", `{"AutoExitNode": "any", "AutoExitNodeSet": true}`, func(p *Preferences) { p.ExitNode = AutoExitNode }, ""},
		{"no exit node", `{"ExitNodeIDSet": true, "ExitNodeIPSet": true}`, func(p *Preferences) { p.ExitNode = "" }, ""},
		{"routes", `{"AdvertiseRoutes": ["10.0.0.0/8", "0.0.0.0/0", "::/0"], "AdvertiseRoutesSet": true}`, func(p *Preferences) { p.AdvertiseRoutes = routes }, ""},
		{"wants to run", `{"WantRunning": true, "WantRunningSet": true, "LoggedOut": false, "LoggedOutSet": true}`, func(*Preferences) {}, ""},
		{"what is so already", `{"RunSSH": false, "RunSSHSet": true, "NetfilterMode": 2, "NetfilterModeSet": true, "AdvertiseTags": ["tag:a"], "AdvertiseTagsSet": true}`, func(*Preferences) {}, ""},
		{"routes without their mask", `{"AdvertiseRoutes": ["10.9.0.0/16"], "AdvertiseTags": ["tag:b"]}`, func(*Preferences) {}, ""},
		{"other tags", `{"AdvertiseTags": ["tag:b"], "AdvertiseTagsSet": true}`, nil, "AdvertiseTags"},
		{"what is behind a pointer", `{"NoStatefulFiltering": false, "NoStatefulFilteringSet": true}`, nil, "NoStatefulFiltering"},
		{"an unknown field of no meaning", `{"Egg": false, "EggSet": true}`, func(*Preferences) {}, ""},
		{"down", `{"WantRunning": false, "WantRunningSet": true}`, nil, "WantRunning: the node runs"},
		{"logged out", `{"LoggedOut": true, "LoggedOutSet": true}`, nil, "use logout"},
		{"SSH", `{"RunSSH": true, "RunSSHSet": true, "ShieldsUp": true, "ShieldsUpSet": true}`, nil, "RunSSH: this node cannot change that"},
		{"updates", `{"AutoUpdate": {"Check": true}, "AutoUpdateSet": {"CheckSet": true}}`, nil, "AutoUpdate"},
		{"another server", `{"ControlURL": "https://other.test", "ControlURLSet": true}`, nil, "ControlURL"},
		{"an unknown field", `{"Egg": true, "EggSet": true}`, nil, "Egg"},
		{"no preference", `{"Hostname": 5, "HostnameSet": true}`, nil, "Hostname"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m maskedPrefs
			if err := json.Unmarshal([]byte(tt.body), &m); err != nil {
				t.Fatal(err)
			}
			got, want := start, start
			err := m.apply(&got, prefsOf(&start, &Snapshot{State: Running}))
			if !slices.Equal(start.Tags, tags) || start.AdvertiseRoutes[0] != ten {
				t.Fatalf("what is in force was written to: %+v", start)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			tt.want(&want)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// FuzzApply: whatever comes, there is a change or an error, and a change can be
// shown.
func FuzzApply(f *testing.F) {
	for _, seed := range []string{`{"ShieldsUp":true,"ShieldsUpSet":true}`, `{"AutoUpdateSet":{"CheckSet":true}}`, `{"ExitNodeIP":"::1","ExitNodeIPSet":true}`, `{"Set":true}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m maskedPrefs
		if json.Unmarshal(body, &m) != nil {
			return
		}
		for _, m := range []maskedPrefs{m, m.all()} {
			p := Preferences{ControlURL: "https://control.test"}
			s := &Snapshot{State: Running, Netmap: testMap()}
			if m.apply(&p, prefsOf(&p, s)) == nil {
				mustJSON(t, prefsOf(&p, s))
			}
		}
	})
}

// An exit node is shown by its ID, however it was named, as soon as it is known.
func TestExitNodeIsShownByID(t *testing.T) {
	for _, tt := range []struct {
		name string
		nm   *netmap.Netmap
		id   netmap.StableID
		ip   string
		auto string
	}{
		{"", testMap(), "", "invalid IP", ""},
		{"web", testMap(), "n2", "invalid IP", ""},
		{"100.64.0.2", testMap(), "n2", "invalid IP", ""},
		{"n2", testMap(), "n2", "invalid IP", ""},
		{"100.64.0.2", nil, "", "100.64.0.2", ""},
		{"web", nil, "", "invalid IP", ""},
		{"auto", testMap(), "n2", "invalid IP", "any"},
		{"auto:any", testMap(), "n2", "invalid IP", "any"},
		{"automation", testMap(), "", "invalid IP", ""},
	} {
		p := prefsOf(&Preferences{ExitNode: tt.name}, &Snapshot{Netmap: tt.nm, ExitNode: "n2"})
		if p.ExitNodeID != tt.id || p.ExitNodeIP.String() != tt.ip || p.AutoExitNode != tt.auto {
			t.Errorf("%q: %q, %v, %q", tt.name, p.ExitNodeID, p.ExitNodeIP, p.AutoExitNode)
		}
	}
}

// Preferences change all or none, and the answer shows them.
func TestEditPrefs(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	p, err := c.EditPrefs(within(t), map[string]any{"Hostname": "new", "ShieldsUp": true})
	if err != nil || p.Hostname != "new" || !p.ShieldsUp || !p.CorpDNS || !p.WantRunning {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.EditPrefs(within(t), map[string]any{"Hostname": "newer", "RunSSH": true}); err == nil || n.prefs.Get().Hostname != "new" {
		t.Errorf("%v, %+v", err, n.prefs.Get())
	}
	if p, err := c.Prefs(within(t)); err != nil || p.Hostname != "new" {
		t.Errorf("%+v, %v", p, err)
	}
}

// SVC-127: check-prefs tells of a whole set what start would refuse.
func TestCheckPrefs(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	for body, want := range map[string]string{
		`{"ControlURL": "https://control.test/", "CorpDNS": false, "WantRunning": true, "NetfilterMode": 2, "NoStatefulFiltering": true}`: "",
		`{"ControlURL": "https://control.test", "CorpDNS": true, "WantRunning": true, "NetfilterMode": 2, "RunSSH": true}`:                "RunSSH",
	} {
		var a struct{ Error string }
		status, text, _ := ask(t, c, "POST", prefix+"check-prefs", body)
		if err := json.Unmarshal([]byte(text), &a); err != nil || status != 200 || !strings.Contains(a.Error, want) || (a.Error == "") != (want == "") {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
}

// start takes preferences; login-interactive asks for a URL unless there is one;
// logout forgets.
func TestLogin(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	if err := c.Login(within(t), "tskey-auth-1"); err != nil {
		t.Error(err)
	}
	if err := c.Login(within(t), "bad"); err == nil || !strings.Contains(err.Error(), "refused the auth key") {
		t.Errorf("bad key: %v", err)
	}
	body := `{"UpdatePrefs": {"ControlURL": "https://control.test", "Hostname": "up", "WantRunning": true, "NetfilterMode": 2, "CorpDNS": true}}`
	if status, text, _ := ask(t, c, "POST", prefix+"start", body); status != 204 || n.prefs.Get().Hostname != "up" {
		t.Errorf("%d %s, %+v", status, text, n.prefs.Get())
	}
	other := `{"AuthKey": "tskey-auth-3", "UpdatePrefs": {"ControlURL": "https://other.test"}}`
	if status, text, _ := ask(t, c, "POST", prefix+"start", other); status != 400 || !strings.Contains(text, "belongs to https://control.test") {
		t.Errorf("%d %s", status, text)
	}
	if err := c.Login(within(t), ""); err != nil {
		t.Error(err)
	}
	n.snapshot.Store(Snapshot{State: NeedsLogin, AuthURL: "https://login.test"})
	if err := c.Login(within(t), ""); err != nil { // there is a URL already
		t.Error(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if want := []string{"tskey-auth-1", ""}; !slices.Equal(n.logins, want) {
		t.Errorf("logins %q, want %q", n.logins, want)
	}
	if err := c.Logout(within(t)); err != nil || n.Snapshot().State != NeedsLogin {
		t.Errorf("logout: %v", err)
	}
}

// The auth key of a start is used once, if the node needs a login or the client
// asks for one at once: what runs each time the machine starts does not make
// another node of it each time, nor does a login of tomorrow find it.
func TestAuthKeyOfStart(t *testing.T) {
	const start = `{"AuthKey": "tskey-auth-1"}`
	for _, tt := range []struct {
		name  string
		state State
		later time.Duration // until login-interactive; negative: not at all
		want  []string
	}{
		{"running", Running, -1, nil},
		{"running, anew", Running, 0, []string{"tskey-auth-1"}},
		{"running, anew the next day", Running, 24 * time.Hour, []string{""}},
		{"logged out", NeedsLogin, -1, []string{"tskey-auth-1"}},
		{"logged out, as the command does", NeedsLogin, 0, []string{"tskey-auth-1"}},
		{"logged out, anew the next day", NeedsLogin, 24 * time.Hour, []string{"tskey-auth-1", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFake()
				n.snapshot.Store(Snapshot{State: tt.state, NodeKey: selfKey})
				s := New(Config{Node: n, Password: "secret", Operator: -1})
				post := func(endpoint, body string) {
					r := httptest.NewRequest("POST", "http://"+localHost+prefix+endpoint, strings.NewReader(body))
					r.SetBasicAuth("", "secret")
					w := httptest.NewRecorder()
					if s.serveHTTP(w, r); w.Code != http.StatusNoContent {
						t.Errorf("%s: %d %s", endpoint, w.Code, w.Body)
					}
				}
				post("start", start)
				if tt.later >= 0 {
					time.Sleep(tt.later) // fake time
					post("login-interactive", "")
				}
				if !slices.Equal(n.logins, tt.want) {
					t.Errorf("logins %q, want %q", n.logins, tt.want)
				}
			})
		})
	}
}

// There is one login: another needs a logout first.
func TestOneProfile(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	if err := c.Call(within(t), "PUT", "profiles/", nil, nil); err == nil || !strings.Contains(err.Error(), "log out first") {
		t.Errorf("logged in: %v", err)
	}
	n.snapshot.Store(Snapshot{State: NeedsLogin})
	if err := c.Call(within(t), "PUT", "profiles/", nil, nil); err != nil {
		t.Errorf("logged out: %v", err)
	}
	for path, want := range map[string]int{"profiles/" + profileID: 204, "profiles/1234": 404} {
		if status, text, _ := ask(t, c, "POST", prefix+path, ""); status != want {
			t.Errorf("change to %s: %d %s", path, status, text)
		}
	}
}

// The program is asked to end, if it wants to be.
func TestShutdown(t *testing.T) {
	asked := make(chan struct{}, 1)
	_, c := serve(t, newFake(), func(c *Config) { c.Shutdown = func() { asked <- struct{}{} } })
	if err := c.Call(within(t), "POST", "shutdown", nil, nil); err != nil {
		t.Fatal(err)
	}
	<-asked
}
