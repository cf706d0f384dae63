package localapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// watchAll subscribes and returns what reads one message.
func watchAll(t *testing.T, c *Client, mask uint64) (next func() *Notify) {
	t.Helper()
	body, err := c.Stream(within(t), "GET", fmt.Sprintf("watch-ipn-bus?mask=%d", mask), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { body.Close() })
	d := json.NewDecoder(body)
	return func() *Notify {
		t.Helper()
		n := new(Notify)
		if err := d.Decode(n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// SVC-132, SVC-133: the first message has what the mask asks for, and no more.
func TestBusBegins(t *testing.T) {
	n := newFake()
	n.snapshot.Store(Snapshot{State: NeedsLogin, AuthURL: "https://login.test", Netmap: testMap(), Health: []string{"alas"}})
	_, c := serve(t, n, nil)
	none := watchAll(t, c, 0)()
	if none.SessionID == "" || none.Version != "1.2.3-test" || none.State != nil || none.Prefs != nil || none.NetMap != nil || none.InitialStatus != nil || none.Health != nil {
		t.Errorf("nothing asked: %s", mustJSON(t, none))
	}
	all := watchAll(t, c, watchEngine|watchInitialState|watchInitialPrefs|watchInitialNetmap|watchInitialStatus|watchHealth)()
	switch {
	case all.State == nil || *all.State != NeedsLogin || all.BrowseToURL == nil || *all.BrowseToURL != "https://login.test":
		t.Errorf("state: %s", mustJSON(t, all))
	case all.Prefs == nil || all.NetMap == nil || len(all.NetMap.Peers) != 1 || all.InitialStatus == nil || all.Engine == nil:
		t.Errorf("%s", mustJSON(t, all))
	case all.Health == nil || all.Health.Warnings["tsnode-1"].Text != "alas":
		t.Errorf("health: %s", mustJSON(t, all.Health))
	case all.SessionID == none.SessionID:
		t.Error("two sessions have one ID")
	}
}

// SVC-132: masks that make no sense.
func TestBusMasks(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	for _, mask := range []string{"x", "-1", "65536", "4352", "8448", "16640", "33024"} {
		if status, text, _ := ask(t, c, "GET", prefix+"watch-ipn-bus?mask="+mask, ""); status != 400 {
			t.Errorf("%s: %d %s", mask, status, text)
		}
	}
}

// Changes are told when they come: state, URL, preferences, this node.
func TestBusTellsChanges(t *testing.T) {
	n := newFake()
	n.snapshot.Store(Snapshot{State: NeedsLogin})
	_, c := serve(t, n, nil)
	next := watchAll(t, c, 0)
	next()
	n.snapshot.Store(Snapshot{State: NeedsLogin, AuthURL: "https://login.test"})
	if m := next(); m.BrowseToURL == nil || *m.BrowseToURL != "https://login.test" || m.State != nil {
		t.Errorf("URL: %s", mustJSON(t, m))
	}
	n.snapshot.Store(Snapshot{State: Running, NodeKey: selfKey, Netmap: testMap()})
	if m := next(); m.State == nil || *m.State != Running || m.LoginFinished == nil || m.SelfChange == nil || m.SelfChange.Name != "me.tailnet.test." {
		t.Errorf("running: %s", mustJSON(t, m))
	}
	n.prefs.Store(Preferences{Hostname: "other"})
	if m := next(); m.Prefs == nil || m.Prefs.Hostname != "other" || m.State != nil {
		t.Errorf("preferences: %s", mustJSON(t, m))
	}
}

// What changes of health alone is told to who asks for that (SVC-132).
func TestBusTellsHealth(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	next := watchAll(t, c, watchHealth)
	next()
	n.relays.Store("no relay")
	if m := next(); m.Health == nil || m.Health.Warnings["tsnode-1"].Text != "no relay" || m.State != nil {
		t.Errorf("%s", mustJSON(t, m))
	}
	n.relays.Store("")
	if m := next(); m.Health == nil || len(m.Health.Warnings) != 0 {
		t.Errorf("%s", mustJSON(t, m))
	}
}

// Who asks for a state or a login is told where the node is, even if that has not
// changed: the ecosystem's command waits for it.
func TestBusAnswersWhoAsks(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	next := watchAll(t, c, 0)
	next()
	if _, err := c.EditPrefs(within(t), map[string]any{"WantRunning": true}); err != nil {
		t.Fatal(err)
	}
	if m := next(); m.State == nil || *m.State != Running {
		t.Errorf("%s", mustJSON(t, m))
	}
}

// Peers that have come, changed or gone are told to who asks for that, and
// nothing of those that are as before.
func TestBusPeers(t *testing.T) {
	n := newFake()
	_, c := serve(t, n, nil)
	with, without := watchAll(t, c, watchPeers), watchAll(t, c, 0)
	with()
	without()
	first := n.Snapshot().Netmap
	second := *first
	second.Peers = append(slices.Clone(first.Peers), &netmap.Peer{ID: 3, StableID: "n3", Name: "db.tailnet.test.", User: 7})
	second.Users = map[netmap.UserID]netmap.UserProfile{7: {ID: 7}, 9: {ID: 9}}
	n.snapshot.Store(Snapshot{State: Running, NodeKey: selfKey, Netmap: &second})
	if m := with(); len(m.PeersChanged) != 1 || m.PeersChanged[0].ID != 3 || len(m.UserProfiles) != 1 || m.SelfChange != nil {
		t.Errorf("added: %s", mustJSON(t, m))
	}
	third := second
	third.Peers = second.Peers[1:]
	n.snapshot.Store(Snapshot{State: Running, NodeKey: selfKey, Netmap: &third})
	if m := with(); len(m.PeersChanged) != 0 || !slices.Equal(m.PeersRemoved, []netmap.NodeID{2}) {
		t.Errorf("removed: %s", mustJSON(t, m))
	}
	n.snapshot.Store(Snapshot{State: Starting, NodeKey: selfKey, Netmap: &third})
	if m := without(); m.State == nil || m.PeersChanged != nil {
		t.Errorf("not asked for: %s", mustJSON(t, m))
	}
}

// SVC-134: a client that does not read is disconnected, and nothing else waits
// for it. Its node is told of in messages that no socket holds.
func TestSlowWatcherIsDisconnected(t *testing.T) {
	n := newFake()
	big := testMap()
	for i := range 2000 {
		big.Peers = append(big.Peers, &netmap.Peer{ID: netmap.NodeID(10 + i), Name: strings.Repeat("x", 1000)})
	}
	n.snapshot.Store(Snapshot{State: Running, NodeKey: selfKey, Netmap: big})
	s, c := serve(t, n, func(c *Config) { c.writeTimeout = 500 * time.Millisecond })
	conn, err := net.Dial("unix", c.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %swatch-ipn-bus?mask=%d HTTP/1.1\r\nHost: %s\r\n\r\n", prefix, watchInitialNetmap, localHost)
	waitFor(t, "the end of the connection", func() bool {
		if _, err := c.Prefs(within(t)); err != nil {
			t.Fatal(err)
		}
		return s.Stats().Slow > 0
	})
	if _, err := bufio.NewReader(conn).ReadString(0); err == nil {
		t.Error("the connection is open")
	}
}

// Client.Watch begins with the state, and ends when it is told to.
func TestClientWatch(t *testing.T) {
	_, c := serve(t, newFake(), nil)
	seen := 0
	err := c.Watch(within(t), func(n *Notify) bool {
		seen++
		return n.State == nil || *n.State != Running
	})
	if err != nil || seen != 1 {
		t.Errorf("%d messages, %v", seen, err)
	}
}
