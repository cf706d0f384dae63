package localapi

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// Bits of the mask of watch-ipn-bus (SVC-132). The others change nothing here.
const (
	watchEngine        = 1 << 0
	watchInitialState  = 1 << 1
	watchInitialPrefs  = 1 << 2
	watchInitialNetmap = 1 << 3
	watchHealth        = 1 << 7
	watchRateLimit     = 1 << 8
	watchPeers         = 1 << 12
	watchNoNetmap      = 1 << 13
	watchInitialStatus = 1 << 14
	watchPatches       = 1 << 15 // peers come whole all the same
	watchInProcess     = 1 << 16
)

// engineInterval is how often counters are told to who wants them.
const engineInterval = 2 * time.Second

// noDeadline takes a deadline back.
var noDeadline time.Time

// A Notify is one message of the bus (SVC-133). What is nil has not changed.
type Notify struct {
	Version       string
	SessionID     string                               `json:",omitempty"` // in the first message
	LoginFinished *struct{}                            `json:",omitempty"`
	State         *State                               `json:",omitempty"`
	Prefs         *Prefs                               `json:",omitempty"`
	SelfChange    *NodeInfo                            `json:",omitempty"`
	InitialStatus *Status                              `json:",omitempty"`
	NetMap        *NetworkMap                          `json:",omitempty"`
	PeersChanged  []*NodeInfo                          `json:",omitempty"`
	PeersRemoved  []netmap.NodeID                      `json:",omitempty"`
	UserProfiles  map[netmap.UserID]netmap.UserProfile `json:",omitempty"`
	Engine        *EngineStatus                        `json:",omitempty"`
	BrowseToURL   *string                              `json:",omitempty"`
	Health        *HealthState                         `json:",omitempty"`
}

// An EngineStatus counts traffic.
type EngineStatus struct {
	RBytes, WBytes int64
	NumLive        int // peers with a tunnel
	LiveDERPs      int // the home relay; others come and go with peers
	LivePeers      map[key.NodePublic]PeerTraffic
}

// PeerTraffic is that of one peer.
type PeerTraffic struct {
	NodeKey          key.NodePublic
	TxBytes, RxBytes int64
	LastHandshake    time.Time
}

// A HealthState lists problems.
type HealthState struct{ Warnings map[string]Warning }

// A Warning is a problem.
type Warning struct{ WarnableCode, Severity, Title, Text string }

// A watch is one client of the bus. It tells the newest state, whatever came
// between: a client that reads slowly misses what is over, and one that does not
// read at all is disconnected (SVC-134). So nothing waits in a queue.
type watch struct {
	*Server
	mask  uint64
	w     http.ResponseWriter
	out   *http.ResponseController
	seen  *Snapshot
	prefs string // as last told, in JSON
}

// watchBus tells a client of changes until it goes.
func (s *Server) watchBus(w http.ResponseWriter, r *http.Request) {
	mask, err := strconv.ParseUint(r.FormValue("mask"), 10, 64)
	if r.FormValue("mask") == "" {
		mask, err = 0, nil
	}
	const unlimited = watchPeers | watchNoNetmap | watchInitialStatus | watchPatches
	switch {
	case err != nil:
		http.Error(w, "bad mask", http.StatusBadRequest)
		return
	case mask&watchInProcess != 0, mask&watchRateLimit != 0 && mask&unlimited != 0:
		http.Error(w, "mask: bits that exclude one another, or none of this API", http.StatusBadRequest)
		return
	}
	takeTime(w)
	w.Header().Set("Content-Type", "application/json")
	b := &watch{Server: s, mask: mask, w: w, out: http.NewResponseController(w)}
	b.serve(r)
}

// serve tells of changes until the client goes, or does not read.
func (b *watch) serve(r *http.Request) {
	ticker := time.NewTicker(engineInterval)
	defer ticker.Stop()
	var ticks <-chan time.Time
	if b.mask&watchEngine != 0 {
		ticks = ticker.C
	}
	changes := b.config.Node.Changes()
	_, poked := b.pokes.Load()
	n := b.first()
	for {
		if n != nil && !b.send(n) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changes.State:
		case <-changes.Netmap:
		case <-changes.Preferences:
		case <-changes.Relays:
		case <-changes.ExitNode:
		case <-changes.Control:
		case <-poked:
			_, poked = b.pokes.Load()
			n = b.again()
			continue
		case <-ticks:
			n = &Notify{Engine: b.engine()}
			continue
		}
		changes = b.config.Node.Changes()
		n = b.next()
	}
}

// send writes one message. It reports false when the client does not take it.
func (b *watch) send(n *Notify) bool {
	n.Version = b.config.Version
	text, err := json.Marshal(n)
	if err != nil {
		b.config.Logger.Error("bus", "err", err)
		return false
	}
	if _, err = b.w.Write(append(text, '\n')); err == nil {
		err = b.out.Flush()
	}
	return err == nil
}

// first returns the first message: what the mask asks for of the present.
func (b *watch) first() *Notify {
	now := b.config.Node.Snapshot()
	b.seen = now
	b.prefsChanged()
	n := &Notify{SessionID: sessionID()}
	if b.mask&watchInitialState != 0 {
		n.State = &now.State
		if now.AuthURL != "" {
			n.BrowseToURL = &now.AuthURL
		}
	}
	if b.mask&watchInitialPrefs != 0 {
		n.Prefs = b.prefsNow()
	}
	if b.mask&watchInitialNetmap != 0 && now.Netmap != nil {
		n.NetMap = networkMapOf(now.Netmap)
	}
	if b.mask&watchInitialStatus != 0 {
		n.InitialStatus = b.builder().status(b.config.Version, true)
	}
	if b.mask&watchHealth != 0 {
		n.Health = healthOf(now.Health)
	}
	if b.mask&watchEngine != 0 {
		n.Engine = b.engine()
	}
	return n
}

func sessionID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// again returns what who has asked for a login or a state waits for.
func (b *watch) again() *Notify {
	now := b.config.Node.Snapshot()
	n := &Notify{State: &now.State}
	if now.AuthURL != "" {
		n.BrowseToURL = &now.AuthURL
	}
	return n
}

// next returns what has changed; nil for nothing that the client wants to know.
func (b *watch) next() *Notify {
	old, now := b.seen, b.config.Node.Snapshot()
	b.seen = now
	n, told := new(Notify), false
	if now.State != old.State {
		n.State, told = &now.State, true
		if old.State == NeedsLogin && !now.NodeKey.IsZero() {
			n.LoginFinished = new(struct{})
		}
	}
	if now.AuthURL != old.AuthURL && now.AuthURL != "" {
		n.BrowseToURL, told = &now.AuthURL, true
	}
	if b.prefsChanged() {
		n.Prefs, told = b.prefsNow(), true
	}
	if now.Netmap != nil && now.Netmap != old.Netmap {
		told = b.netmapChanged(n, old.Netmap, now.Netmap) || told
	}
	if b.mask&watchHealth != 0 && !slices.Equal(now.Health, old.Health) {
		n.Health, told = healthOf(now.Health), true
	}
	if !told {
		return nil
	}
	return n
}

// prefsChanged reports whether preferences are others than those last told.
func (b *watch) prefsChanged() bool {
	text, _ := json.Marshal(b.prefsNow())
	changed := string(text) != b.prefs
	b.prefs = string(text)
	return changed
}

// netmapChanged tells what of a network map is new, and reports whether anything
// is. Nodes that have not changed keep their pointers.
func (b *watch) netmapChanged(n *Notify, old, now *netmap.Netmap) (told bool) {
	if old == nil {
		old = new(netmap.Netmap)
	}
	if old.Self != now.Self {
		n.SelfChange, told = infoOf(now.Self), true
	}
	if b.mask&(watchPeers|watchPatches) == 0 {
		return told
	}
	for _, p := range now.Peers {
		if before, ok := old.PeerByID(p.ID); !ok || before != p {
			n.PeersChanged = append(n.PeersChanged, infoOf(p))
		}
	}
	for _, p := range old.Peers {
		if _, ok := now.PeerByID(p.ID); !ok {
			n.PeersRemoved = append(n.PeersRemoved, p.ID)
		}
	}
	n.UserProfiles = usersOf(n.PeersChanged, now.Users)
	return told || len(n.PeersChanged)+len(n.PeersRemoved) > 0
}

// usersOf returns those of all users whose nodes are listed.
func usersOf(nodes []*NodeInfo, all map[netmap.UserID]netmap.UserProfile) map[netmap.UserID]netmap.UserProfile {
	users := make(map[netmap.UserID]netmap.UserProfile)
	for _, n := range nodes {
		for _, id := range []netmap.UserID{n.User, n.Sharer} {
			if u, ok := all[id]; ok {
				users[id] = u
			}
		}
	}
	return users
}

// engine counts the traffic of all peers.
func (b *watch) engine() *EngineStatus {
	e := &EngineStatus{LivePeers: make(map[key.NodePublic]PeerTraffic)}
	now := b.config.Node.Snapshot()
	if now.Netmap == nil {
		return e
	}
	if now.HomeRegion != 0 {
		e.LiveDERPs = 1
	}
	for _, p := range now.Netmap.Peers {
		t := b.config.Node.Traffic(p.Key)
		e.RBytes, e.WBytes = e.RBytes+int64(t.RxBytes), e.WBytes+int64(t.TxBytes)
		if !t.LastHandshake.IsZero() {
			e.NumLive++
			e.LivePeers[p.Key] = PeerTraffic{p.Key, int64(t.TxBytes), int64(t.RxBytes), t.LastHandshake}
		}
	}
	return e
}

// healthOf lists problems as warnings.
func healthOf(problems []string) *HealthState {
	h := &HealthState{Warnings: make(map[string]Warning)}
	for i, text := range problems {
		code := "tsnode-" + strconv.Itoa(i+1)
		h.Warnings[code] = Warning{WarnableCode: code, Severity: "medium", Title: "tsnode", Text: text}
	}
	return h
}
