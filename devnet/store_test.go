package devnet

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// Members, keys and the server's identity survive a restart.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	n := New(t, Config{StateDir: dir})
	reusable, single := n.AuthKey(KeyOptions{Reusable: true, User: "alice"}), n.AuthKey(KeyOptions{})
	a := newRawNode(t, n, "a")
	a.register(reusable)
	a.report(func(r *control.MapRequest) { r.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5")} })
	newRawNode(t, n, "b").register(single)
	if err := n.SetTags("b", "tag:x"); err != nil {
		t.Fatal(err)
	}
	if err := n.SetAttributes("b", netmap.CapMap{"x": nil}); err != nil {
		t.Fatal(err)
	}
	stream := a.poll()
	before := n.Nodes()
	var server control.KeyResponse
	if err := getJSON(t.Context(), n.URL()+"/key?v=130", &server); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	stream.ended()

	n = New(t, Config{StateDir: dir})
	after := n.Nodes()
	if !before[0].Online || after[0].Online || after[0].LastSeen.IsZero() {
		t.Errorf("online: %v before, %v after, last seen %v", before[0].Online, after[0].Online, after[0].LastSeen)
	}
	before[0].Online, after[0].LastSeen = false, time.Time{}
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b key.NodePublic) bool { return a == b }),
		cmp.Comparer(func(a, b key.MachinePublic) bool { return a == b })); diff != "" {
		t.Errorf("members (-before +after):\n%s", diff)
	}
	var again control.KeyResponse
	if err := getJSON(t.Context(), n.URL()+"/key?v=130", &again); err != nil || again.PublicKey != server.PublicKey {
		t.Errorf("server key %v, was %v, %v", again.PublicKey, server.PublicKey, err)
	}
	a.tailnet = n
	a.connect()
	if s := a.poll(); s.peer("b") == nil || s.self.Name != "a.tailnet.test." {
		t.Errorf("map after the restart: %+v", s.state)
	}
	if resp := newRawNode(t, n, "c").register(single); resp.Error != keyRefusals.used {
		t.Errorf("spent key: %+v", resp)
	}
	c := newRawNode(t, n, "c")
	if resp := c.register(reusable); resp.Error != "" || resp.Login.LoginName != "alice@tailnet.test" {
		t.Errorf("reusable key: %+v", resp)
	}
	if info, _ := n.Node("c"); info.ID != 3 || info.Addresses[0] != netip.MustParseAddr("100.64.0.3") {
		t.Errorf("the next member: %+v", info)
	}
	if info, err := os.Stat(filepath.Join(dir, stateFile)); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("state file: %v, %v", info.Mode(), err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("files %v, %v", all, err)
	}
}

// A state that cannot be read ends the start, with a way out.
func TestDamagedState(t *testing.T) {
	good := goodState(t)
	for name, text := range map[string]string{
		"empty": "", "no JSON": "x", "no key": "{}",
		"no owner":     strings.Replace(good, `"User": 1`, `"User": 9`, 1),
		"no name":      strings.Replace(good, `"Name": "alice-1"`, `"Name": ""`, 1),
		"twice":        strings.Replace(good, `"Name": "alice-2"`, `"Name": "alice-1"`, 1),
		"bad address":  strings.Replace(good, "100.64.0.1/32", "100.64.0.1/99", 1),
		"no addresses": strings.Replace(good, `"Addresses": [`, `"Addresses": [], "x": [`, 1),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := Start(t.Context(), Config{StateDir: dir})
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), stateFile+" is damaged") || !strings.Contains(err.Error(), "remove it to start anew") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := Start(t.Context(), Config{StateDir: "/dev/null/x"}); err == nil {
		n.Close()
		t.Error("a folder that cannot be read is no error")
	}
}

// goodState is the file of a tailnet with some members.
func goodState(t testing.TB) string {
	n := newTestTailnet(t, "")
	n.cfg.StateDir = t.TempDir()
	n.keys["k"] = &authKey{KeyOptions: KeyOptions{Tags: []string{"tag:x"}, Lifetime: time.Hour}, Expires: time.Now()}
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(n.cfg.StateDir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file cut short is damaged, wherever the cut is.
func TestTruncatedState(t *testing.T) {
	good := strings.TrimSpace(goodState(t))
	for i := range len(good) {
		n := &tailnet{members: make(map[netmap.NodeID]*member), keys: make(map[string]*authKey)}
		if err := n.restore([]byte(good[:i]), time.Now()); err == nil {
			t.Fatalf("%d of %d bytes are taken", i, len(good))
		}
	}
}

// What can be restored works, and is stored as it was.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(goodState(f)))
	f.Add([]byte(`{"Private":"privkey:1011111111111111111111111111111111111111111111111111111111111151","Users":["x"],"Keys":{"a":null},"Members":[{"ID":-1,"Name":"x","User":1,"Addresses":[""],"KeyExpiry":"1970-01-01T00:00:00Z","Hostinfo":{"RoutableIPs":[""]}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Config{}
		if err := c.complete(); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		n, err := newTailnet(c, now)
		if err != nil {
			t.Fatal(err)
		}
		if n.restore(text, now) != nil {
			return
		}
		for _, m := range n.sorted() {
			v := newView(n, m.ID, loopback)
			resp, _ := v.next(n, m, now)
			if _, err := json.Marshal(resp); err != nil {
				t.Errorf("map of %q: %v", m.Name, err)
			}
		}
		n.advance(now)
		if n.wait(now) <= 0 {
			t.Error("what is due stays due")
		}
	})
}

// A state that cannot be written is an error of Close, and nothing else stops.
func TestStateNotWritable(t *testing.T) {
	dir := t.TempDir()
	n, err := Start(t.Context(), Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	a := newRawNode(t, n, "a").join(KeyOptions{})
	n.Nodes() // the owner answers once the new member is stored
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder was
		t.Fatal(err)
	}
	a.call(control.PathMap, a.mapRequest(), http.StatusOK)
	if err := n.Close(); err == nil || !strings.Contains(err.Error(), "devnet: state: ") {
		t.Errorf("Close: %v", err)
	}
}
