package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// golden is what the node that wrote the golden file was; testdata/README.md.
const (
	goldenNodeKey = "nodekey:070c563a32694825f0c86e3bb384fe3cba4f9f452c9251aa65807419e271b937"
	goldenID      = "a9ab"
)

// goldenStore returns tsnet's state in memory.
func goldenStore(t testing.TB) *Memory {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "tsnet-v1.102.5.state"))
	if err != nil {
		t.Fatal(err)
	}
	m := NewMemory()
	if m.values, err = parseFile(b); err != nil {
		t.Fatal(err)
	}
	return m
}

func load(t *testing.T, s Store) *Profile {
	t.Helper()
	p, err := Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func save(t *testing.T, s Store, p *Profile) {
	t.Helper()
	if err := p.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// TestLoadGolden: a state of tsnet is adopted: same keys, same identity, no
// login (SVC-138).
func TestLoadGolden(t *testing.T) {
	s := goldenStore(t)
	p := load(t, s)
	if !p.LoggedIn() || p.Node.Public().String() != goldenNodeKey {
		t.Errorf("node key %v, want %s", p.Node.Public(), goldenNodeKey)
	}
	if got := p.Machine.SecretText(); got != string(s.values[keyMachine]) {
		t.Error("machine key differs from the stored one")
	}
	if !p.OldNode.IsZero() || p.Lock.IsZero() {
		t.Errorf("old node key present: %v, lock key present: %v; want only the latter", !p.OldNode.IsZero(), !p.Lock.IsZero())
	}
	want := Profile{
		ID:     goldenID,
		NodeID: "TESTCTRL00000001",
		User: netmap.UserProfile{
			ID: 1, LoginName: "user-1@fake-control.example.net", DisplayName: "User 1",
			ProfilePicURL: "https://tailscale.com/static/images/marketing/team-carney.jpg",
		},
		Tailnet: Tailnet{MagicDNSName: "tail-scale.ts.net", DomainName: "fake-control.example.net"},
		Created: time.Date(2026, 11, 24, 19, 0, 48, 155632659, time.UTC),
		Prefs: Prefs{
			ControlURL: "http://127.0.0.1:44717", CorpDNS: true, WantRunning: true, Hostname: "golden",
			NoStatefulFiltering: new(true), NetfilterMode: NetfilterOn, AutoUpdate: AutoUpdate{Check: true},
		},
	}
	if diff := cmp.Diff(want, *p, cmpopts.IgnoreUnexported(Profile{}), cmpopts.EquateComparable(Prefs{}.ExitNodeIP),
		cmpopts.IgnoreFields(Profile{}, "Machine", "Node", "OldNode", "Lock")); diff != "" {
		t.Errorf("profile (-want +got):\n%s", diff)
	}
}

// TestSaveGolden: saving an unchanged state of tsnet changes no meaning: each
// member tsnet wrote is there with its value (SVC-136).
func TestSaveGolden(t *testing.T) {
	s := goldenStore(t)
	before := maps.Clone(s.values)
	save(t, s, load(t, s))
	if diff := cmp.Diff(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(s.values))); diff != "" {
		t.Errorf("stored values (-want +got):\n%s", diff)
	}
	for _, id := range []string{keyMachine, keyCurrent} {
		if !bytes.Equal(before[id], s.values[id]) {
			t.Errorf("%s changed", id)
		}
	}
	for _, id := range []string{keyProfiles, "profile-" + goldenID} {
		checkContains(t, id, decode(t, before[id]), decode(t, s.values[id]))
	}
}

// checkContains fails unless got has every member of want with its value.
func checkContains(t *testing.T, path string, want, got any) {
	t.Helper()
	w, ok := want.(map[string]any)
	if !ok {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		return
	}
	g, ok := got.(map[string]any)
	if !ok {
		t.Errorf("%s is no object any more", path)
		return
	}
	for name := range w {
		checkContains(t, path+"."+name, w[name], g[name])
	}
}

func decode(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSaveUnknown: what another program stored beside our fields survives, at
// each level, and so do other profiles and values (SVC-136).
func TestSaveUnknown(t *testing.T) {
	s := goldenStore(t)
	id := "profile-" + goldenID
	edit := func(key, old, new string) {
		t.Helper()
		if !strings.Contains(string(s.values[key]), old) {
			t.Fatalf("%s has no %s", key, old)
		}
		s.values[key] = []byte(strings.Replace(string(s.values[key]), old, new, 1))
	}
	edit(id, `"AutoUpdate": {`, `"Future": {"Deep": [1, "x"]}, "AutoUpdate": {"Later": true,`)
	edit(id, `"DriveShares": null`, `"DriveShares": [{"name": "a"}]`)
	edit(id, `"Config": {`, `"Config": {"AttestationKey": {"k": "v"}, "DisallowedTKAStateIDs": ["1"],`)
	edit(keyProfiles, `{"a9ab":{`, `{"ffff":{"ID":"ffff","Key":"profile-ffff","Odd":[1]},"a9ab":{"Future":7,`)
	mustWrite(t, s, "_serve/"+goldenID, []byte(`{"TCP":{}}`))
	before := maps.Clone(s.values)

	p := load(t, s)
	p.Prefs.Hostname, p.Prefs.ExitNodeID = "renamed", "n1"
	save(t, s, p)

	edit(id, `"Hostname": "renamed"`, `"Hostname": "golden"`)
	edit(id, `"ExitNodeID": "n1"`, `"ExitNodeID": ""`)
	for key := range before {
		if key == keyMachine || key == keyCurrent {
			continue
		}
		checkContains(t, key, decode(t, before[key]), decode(t, s.values[key]))
	}
}

// TestPrefsCleared: a preference that is set back to its zero value does not
// keep what was stored.
func TestPrefsCleared(t *testing.T) {
	s := goldenStore(t)
	p := load(t, s)
	full := p.Prefs
	full.AutoExitNode, full.OperatorUser, full.ProfileName = "any", "op", "work"
	full.AdvertiseTags, full.RelayServerPort, full.Sync = []string{"tag:a"}, new(uint16(7)), new(false)
	full.ForceDaemon, full.Egg, full.AutoUpdate.Apply = true, true, new(true)
	for _, prefs := range []Prefs{full, p.Prefs} {
		p.Prefs = prefs
		save(t, s, p)
		got := load(t, s)
		if diff := cmp.Diff(prefs, got.Prefs, cmpopts.EquateComparable(prefs.ExitNodeIP)); diff != "" {
			t.Errorf("preferences (-saved +loaded):\n%s", diff)
		}
	}
	p.User, p.NodeID = netmap.UserProfile{ID: 2, LoginName: "b"}, "n2"
	save(t, s, p)
	if got := load(t, s); !cmp.Equal(got.User, p.User) || got.NodeID != "n2" {
		t.Errorf("loaded user %+v, node %s", got.User, got.NodeID)
	}
}

// TestNewProfile: a store without anything gives a new profile, whose machine
// key stays and whose first Save after the login makes a profile (CTL-02,
// SVC-138).
func TestNewProfile(t *testing.T) {
	s := NewMemory()
	p := load(t, s)
	if p.LoggedIn() || p.ID != "" || p.Machine.IsZero() || p.Lock.IsZero() {
		t.Errorf("new profile: logged in %v, ID %q", p.LoggedIn(), p.ID)
	}
	if diff := cmp.Diff(DefaultPrefs(), p.Prefs, cmpopts.EquateComparable(p.Prefs.ExitNodeIP)); diff != "" {
		t.Errorf("preferences (-default +got):\n%s", diff)
	}
	if again := load(t, s); !again.Machine.Equal(p.Machine) {
		t.Error("the machine key changed before the first login")
	}
	p.Node = key.NewNode()
	save(t, s, p)
	if len(s.values) != 1 {
		t.Errorf("a profile was stored before its node was known: %d values", len(s.values))
	}
	p.NodeID, p.User.LoginName, p.Prefs.ControlURL = "n1", "me@example.com", "https://c.example.com"
	p.OldNode = key.NewNode()
	save(t, s, p)
	if !regexp.MustCompile(`^[0-9a-f]{4}$`).MatchString(p.ID) || p.Created.IsZero() {
		t.Errorf("ID %q, created %v", p.ID, p.Created)
	}
	if got := string(mustRead(t, s, keyCurrent)); got != "profile-"+p.ID {
		t.Errorf("current profile %q", got)
	}
	again := load(t, s)
	if !again.Node.Equal(p.Node) || !again.OldNode.Equal(p.OldNode) || !again.Machine.Equal(p.Machine) || again.Lock.SecretText() != p.Lock.SecretText() {
		t.Error("keys differ after a reload")
	}
	if again.ID != p.ID || again.NodeID != "n1" || again.User.LoginName != "me@example.com" {
		t.Errorf("loaded %v", again)
	}
}

// TestSaveWithoutLoginName: a server that gives no login name still gets its
// node kept.
func TestSaveWithoutLoginName(t *testing.T) {
	s := NewMemory()
	p := load(t, s)
	p.Node, p.NodeID = key.NewNode(), "7"
	save(t, s, p)
	if again := load(t, s); !again.Node.Equal(p.Node) {
		t.Error("the node is forgotten")
	}
}

// TestLoginAgain: a login of the same node or user at the same server takes its
// old profile over; any other gets one of its own.
func TestLoginAgain(t *testing.T) {
	tests := []struct {
		name  string
		login func(*Profile)
		same  bool
	}{
		{"same user", func(p *Profile) { p.NodeID, p.User.ID = "n9", 1 }, true},
		{"same node", func(p *Profile) { p.NodeID, p.User.ID = "TESTCTRL00000001", 9 }, true},
		{"other server", func(p *Profile) { p.NodeID, p.User.ID, p.Prefs.ControlURL = "n9", 1, "https://other" }, false},
		{"other user", func(p *Profile) { p.NodeID, p.User.ID = "n9", 9 }, false},
		{"users unknown", func(p *Profile) { p.NodeID = "n9" }, false},
	}
	for _, tt := range tests {
		s := goldenStore(t)
		mustWrite(t, s, keyCurrent, nil)
		p := load(t, s)
		if p.ID != "" || p.LoggedIn() {
			t.Fatalf("%s: without a current profile %v was loaded", tt.name, p)
		}
		p.Node, p.Prefs.ControlURL = key.NewNode(), "http://127.0.0.1:44717"
		tt.login(p)
		save(t, s, p)
		if same := p.ID == goldenID; same != tt.same {
			t.Errorf("%s: took the old profile: %v, want %v", tt.name, same, tt.same)
		}
		if again := load(t, s); !again.Node.Equal(p.Node) {
			t.Errorf("%s: the new login is not the current one", tt.name)
		}
	}
}

// TestLoadCurrent: which profile is loaded, as tailscaled decides it.
func TestLoadCurrent(t *testing.T) {
	tests := []struct {
		name   string
		edit   func(*Memory)
		wantID string
	}{
		{"as written", func(*Memory) {}, goldenID},
		{"none named", func(m *Memory) { delete(m.values, keyCurrent) }, ""},
		{"gone", func(m *Memory) { m.values[keyCurrent] = []byte("profile-0000") }, ""},
		{"of a Windows user", func(m *Memory) { m.values[keyCurrent] = []byte("user-S-1-5") }, ""},
		{"of a service", func(m *Memory) {
			m.values[keyService] = m.values[keyCurrent]
			delete(m.values, keyCurrent)
		}, goldenID},
		{"deleted by an empty value", func(m *Memory) { m.values[keyCurrent] = []byte{} }, ""},
	}
	for _, tt := range tests {
		s := goldenStore(t)
		tt.edit(s)
		p := load(t, s)
		if p.ID != tt.wantID || p.LoggedIn() != (tt.wantID != "") {
			t.Errorf("%s: loaded %v, want ID %q", tt.name, p, tt.wantID)
		}
	}
	s := goldenStore(t)
	mustWrite(t, s, "profile-"+goldenID, nil) // listed, but its preferences are gone
	if p := load(t, s); p.LoggedIn() || p.ID != goldenID {
		t.Errorf("without preferences: %v", p)
	}
}

// TestLoadLegacy: preferences from before there were profiles are taken over,
// and left for the older program (node-services.md section 14).
func TestLoadLegacy(t *testing.T) {
	golden := goldenStore(t)
	s := NewMemory()
	mustWrite(t, s, keyMachine, golden.values[keyMachine])
	mustWrite(t, s, keyLegacy, golden.values["profile-"+goldenID])
	p := load(t, s)
	if p.Node.Public().String() != goldenNodeKey || p.ID != "" {
		t.Fatalf("loaded %v", p)
	}
	save(t, s, p)
	again := load(t, s)
	if !again.Node.Equal(p.Node) || again.ID == "" {
		t.Errorf("after migration: %v", again)
	}
	if !bytes.Equal(mustRead(t, s, keyLegacy), golden.values["profile-"+goldenID]) {
		t.Error("the old value was changed")
	}
}

// TestFormerControlURL: the former name of the default server means the default.
func TestFormerControlURL(t *testing.T) {
	s := goldenStore(t)
	id := "profile-" + goldenID
	s.values[id] = bytes.Replace(s.values[id], []byte("http://127.0.0.1:44717"), []byte(formerControlURL), 1)
	if p := load(t, s); p.Prefs.ControlURL != "" {
		t.Errorf("control URL %q, want the default", p.Prefs.ControlURL)
	}
}

// TestLoadDamaged: a damaged value is an error that names it and does not show
// it, and nothing is written.
func TestLoadDamaged(t *testing.T) {
	id := "profile-" + goldenID
	secret := "5866d95965b1f4b8f85781c31d573f4a" // first half of the golden node key
	tests := []struct{ name, key, old, new string }{
		{"machine key", keyMachine, "privkey:", "mkey:"},
		{"zero machine key", keyMachine, "", "privkey:" + strings.Repeat("0", 64)},
		{"list", keyProfiles, "{", "["},
		{"entry", keyProfiles, `{"a9ab":{`, `{"a9ab":{"Name":7},"b":{`},
		{"prefs", id, "{", ""},
		{"prefs type", id, `"RouteAll": false`, `"RouteAll": "no"`},
		{"config type", id, `"Config": {`, `"Config": 7, "X": {`},
		{"node key", id, secret, "zz" + secret[2:]},
		{"node key too short", id, secret, secret[:30]},
		{"lock key", id, "nlpriv:", "nlpub:"},
	}
	for _, tt := range tests {
		s := goldenStore(t)
		if tt.old == "" {
			s.values[tt.key] = []byte(tt.new)
		} else {
			s.values[tt.key] = bytes.Replace(s.values[tt.key], []byte(tt.old), []byte(tt.new), 1)
		}
		before := maps.Clone(s.values)
		p, err := Load(t.Context(), s)
		if err == nil {
			t.Errorf("%s: loaded %v", tt.name, p)
			continue
		}
		if !strings.Contains(err.Error(), tt.key) || strings.Contains(err.Error(), secret[2:30]) {
			t.Errorf("%s: error %v; want one that names %s and shows no key", tt.name, err, tt.key)
		}
		if diff := cmp.Diff(before, s.values); diff != "" {
			t.Errorf("%s: the store was changed:\n%s", tt.name, diff)
		}
	}
}

// TestSaveOverDamage: a list that is damaged meanwhile is not replaced.
func TestSaveOverDamage(t *testing.T) {
	s := goldenStore(t)
	p := load(t, s)
	s.values[keyProfiles] = []byte("[]")
	if err := p.Save(t.Context(), s); err == nil || string(s.values[keyProfiles]) != "[]" {
		t.Errorf("save: %v, list %s", err, s.values[keyProfiles])
	}
}

// TestDelete: a logout forgets the login and keeps the installation.
func TestDelete(t *testing.T) {
	s := goldenStore(t)
	mustWrite(t, s, "_serve/"+goldenID, []byte("{}"))
	p := load(t, s)
	machine := p.Machine
	if err := p.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if p.LoggedIn() || p.ID != "" || !p.Machine.Equal(machine) {
		t.Errorf("after a logout: %v", p)
	}
	if got, want := slices.Sorted(maps.Keys(s.values)), []string{keyMachine, keyProfiles}; !slices.Equal(got, want) {
		t.Errorf("left in the store: %v, want %v", got, want)
	}
	if string(s.values[keyProfiles]) != "{}" {
		t.Errorf("list of profiles %s", s.values[keyProfiles])
	}
	if err := p.Delete(t.Context(), s); err != nil {
		t.Errorf("second logout: %v", err)
	}
}

// failing fails every write after the first n.
type failing struct {
	*Memory
	n int
}

var errDisk = errors.New("disk full")

func (f *failing) Write(ctx context.Context, id string, v []byte) error {
	if f.n--; f.n < 0 {
		return errDisk
	}
	return f.Memory.Write(ctx, id, v)
}

// TestSaveCrash: whatever write of a Save is the last, the state loads, as
// before the Save or as after it.
func TestSaveCrash(t *testing.T) {
	for n := range 4 {
		s := &failing{NewMemory(), 1}
		p := load(t, s)
		p.Node, p.NodeID, p.User.LoginName = key.NewNode(), "n1", "me"
		s.n = n
		err := p.Save(t.Context(), s)
		if (err == nil) != (n >= 3) || err != nil && !errors.Is(err, errDisk) {
			t.Errorf("after %d writes: %v", n, err)
		}
		again := load(t, s.Memory)
		if !again.Machine.Equal(p.Machine) || again.LoggedIn() && !again.Node.Equal(p.Node) {
			t.Errorf("after %d writes: loaded %v", n, again)
		}
		save(t, s.Memory, p) // a retry completes it
		if again := load(t, s.Memory); !again.Node.Equal(p.Node) || again.ID != p.ID {
			t.Errorf("after %d writes and a retry: loaded %v", n, again)
		}
	}
}

// TestRedacted: no way of printing a profile shows a key, known or not.
func TestRedacted(t *testing.T) {
	s := goldenStore(t)
	p := load(t, s)
	p.OldNode = key.NewNode()
	save(t, s, p)
	p = load(t, s)
	var out bytes.Buffer
	file := openFile(t, copyGolden(t))
	for _, v := range []any{p, *p, []*Profile{p}, struct{ P *Profile }{p}, s, file, p.prefs, p.config} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
	}
	if b, err := json.Marshal(p); err == nil {
		t.Errorf("a profile was encoded as JSON: %s", b)
	}
	for _, secret := range []string{p.Node.SecretText(), p.OldNode.SecretText(), p.Machine.SecretText(), p.Lock.SecretText()} {
		_, digits, _ := strings.Cut(secret, ":")
		first := digits[:16]
		decimal := strings.Trim(fmt.Sprintf("%d", []byte(first)), "[]")
		goSyntax := strings.Trim(fmt.Sprintf("%#v", []byte(first)), "[]byte{}")
		for _, form := range []string{first, fmt.Sprintf("%x", first), decimal, goSyntax} {
			if strings.Contains(out.String(), form) {
				t.Errorf("a key is in the output:\n%s", out.String())
			}
		}
	}
	if !strings.Contains(out.String(), "user-1@fake-control.example.net") {
		t.Error("a profile prints nothing that names it")
	}
}

func TestAcceptsRoutesByDefault(t *testing.T) {
	for goos, want := range map[string]bool{"linux": false, "darwin": false, "freebsd": false, "windows": true, "android": true} {
		if acceptsRoutesByDefault(goos) != want {
			t.Errorf("%s: want %v", goos, want)
		}
	}
}

// FuzzProfile: any stored preferences either fail or keep their meaning over a
// Save.
func FuzzProfile(f *testing.F) {
	golden := goldenStore(f)
	f.Add(golden.values["profile-"+goldenID], golden.values[keyProfiles])
	f.Add([]byte(`{"Config":null}`), []byte(`{}`))
	f.Add([]byte(`null`), []byte(`null`))
	f.Fuzz(func(t *testing.T, prefs, list []byte) {
		s := goldenStore(t)
		s.values["profile-"+goldenID] = prefs
		s.values[keyProfiles] = list
		p, err := Load(t.Context(), s)
		if err != nil {
			return
		}
		if err := p.Save(t.Context(), s); err != nil {
			return
		}
		again, err := Load(t.Context(), s)
		if err != nil {
			t.Fatalf("a saved profile does not load: %v", err)
		}
		if p.ID != "" && (!again.Node.Equal(p.Node) || again.ID != p.ID || again.NodeID != p.NodeID) {
			t.Errorf("saved %v, loaded %v", p, again)
		}
	})
}
