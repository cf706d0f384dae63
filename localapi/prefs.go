package localapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// Prefs are preferences in the shape of section 13.5. Those that a node in
// userspace does not have show what is true of it.
type Prefs struct {
	ControlURL             string
	RouteAll               bool
	ExitNodeID             netmap.StableID
	ExitNodeIP             netip.Addr
	AutoExitNode           string `json:",omitempty"`
	InternalExitNodePrior  string
	ExitNodeAllowLANAccess bool
	CorpDNS                bool
	RunSSH                 bool
	RunWebClient           bool
	WantRunning            bool
	LoggedOut              bool
	ShieldsUp              bool
	AdvertiseTags          []string
	Hostname               string
	NotepadURLs            bool
	AdvertiseRoutes        []netip.Prefix
	AdvertiseServices      []string
	Sync                   *bool
	NoSNAT                 bool
	NoStatefulFiltering    *bool `json:",omitempty"`
	NetfilterMode          int
	OperatorUser           string `json:",omitempty"`
	AutoUpdate             AutoUpdate
	AppConnector           AppConnector
	PostureChecking        bool
	NetfilterKind          string
	RemoteConfig           bool
	DriveShares            []json.RawMessage
	RelayServerPort        *uint16   `json:",omitempty"`
	Config                 *struct{} // the keys: never sent

	AcceptRoutesFrom []string `json:",omitempty"` // ours alone: of which RouteAll takes routes; none: all
}

// AutoUpdate says what a node does about newer versions: nothing.
type AutoUpdate struct {
	Check bool
	Apply *bool
}

// AppConnector says whether a node is an app connector.
type AppConnector struct{ Advertise bool }

const (
	netfilterOn = 2     // SVC-135; there are no rules of the kernel to manage
	autoAny     = "any" // Prefs.AutoExitNode
	autoExitAny = AutoExitNode + ":" + autoAny
)

// prefsOf returns the preferences of a node.
func prefsOf(p *Preferences, s *Snapshot) *Prefs {
	stateless := true
	j := &Prefs{
		ControlURL: p.ControlURL, RouteAll: p.AcceptRoutes, AcceptRoutesFrom: p.AcceptRoutesFrom, ExitNodeAllowLANAccess: p.ExitNodeAllowLANAccess,
		CorpDNS: p.AcceptDNS, WantRunning: true, LoggedOut: s.State == NeedsLogin && s.NodeKey.IsZero(), ShieldsUp: p.ShieldsUp,
		AdvertiseTags: p.Tags, Hostname: p.Hostname, AdvertiseRoutes: p.AdvertiseRoutes,
		NoStatefulFiltering: &stateless, NetfilterMode: netfilterOn,
	}
	if p.ExitNode == AutoExitNode || p.ExitNode == autoExitAny {
		j.AutoExitNode, j.ExitNodeID = autoAny, s.ExitNode
		return j
	}
	j.ExitNodeID, j.ExitNodeIP = namedExit(p.ExitNode, s)
	return j
}

// namedExit returns the exit node that a preference names: by its ID where it is
// known, else by its address.
func namedExit(name string, s *Snapshot) (id netmap.StableID, ip netip.Addr) {
	if name == "" {
		return "", ip
	}
	ip, err := netip.ParseAddr(name)
	if s.Netmap == nil {
		return "", ip
	}
	var p *netmap.Peer
	var ok bool
	if err == nil {
		p, ok = s.Netmap.PeerByAddr(ip)
	} else if p, ok = s.Netmap.PeerByStableID(netmap.StableID(name)); !ok {
		p, ok = s.Netmap.PeerByName(name)
	}
	if ok {
		return p.StableID, netip.Addr{}
	}
	return "", ip
}

// copy returns preferences that share no memory with p, for decoding into them
// writes to lists and pointers that are there.
func (p *Prefs) copy() (c Prefs) {
	text, _ := json.Marshal(p) // they can be shown
	json.Unmarshal(text, &c)
	return c
}

// A maskedPrefs is a change of preferences: fields by name, of which only those
// count that come with a true "<Field>Set" (SVC-135).
type maskedPrefs map[string]json.RawMessage

// names returns the fields to be changed, in order.
func (m maskedPrefs) names() (names []string) {
	for k, v := range m {
		if name, ok := strings.CutSuffix(k, "Set"); ok && isSet(v) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// isSet reports whether a mask is true, or an object of which a member is.
func isSet(raw json.RawMessage) bool {
	var one bool
	if json.Unmarshal(raw, &one) == nil {
		return one
	}
	var several map[string]bool
	if json.Unmarshal(raw, &several) != nil {
		return false
	}
	for _, v := range several {
		if v {
			return true
		}
	}
	return false
}

// apply makes the changes that m asks for to p, whose present form is now. A field
// that this node does not have may be given the value that it shows.
func (m maskedPrefs) apply(p *Preferences, now *Prefs) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	next := now.copy()
	next.ExitNodeID, next.ExitNodeIP, next.AutoExitNode = "", netip.Addr{}, ""
	if err := json.Unmarshal(raw, &next); err != nil {
		return fmt.Errorf("preferences: %w", err)
	}
	exit := false
	for _, name := range m.names() {
		switch change, known := changes[name]; {
		case isExit(name):
			exit = true
		case known:
			change(p, &next)
		default:
			if err := m.unchanged(name, &next, now); err != nil {
				return err
			}
		}
	}
	if exit {
		setExit(p, &next)
	}
	return nil
}

// changes are the preferences that may change, by field.
var changes = map[string]func(*Preferences, *Prefs){
	"RouteAll":               func(p *Preferences, j *Prefs) { p.AcceptRoutes = j.RouteAll },
	"AcceptRoutesFrom":       func(p *Preferences, j *Prefs) { p.AcceptRoutesFrom = j.AcceptRoutesFrom },
	"ExitNodeAllowLANAccess": func(p *Preferences, j *Prefs) { p.ExitNodeAllowLANAccess = j.ExitNodeAllowLANAccess },
	"CorpDNS":                func(p *Preferences, j *Prefs) { p.AcceptDNS = j.CorpDNS },
	"ShieldsUp":              func(p *Preferences, j *Prefs) { p.ShieldsUp = j.ShieldsUp },
	"Hostname":               func(p *Preferences, j *Prefs) { p.Hostname = j.Hostname },
	"AdvertiseRoutes":        func(p *Preferences, j *Prefs) { p.AdvertiseRoutes = j.AdvertiseRoutes },
}

func isExit(name string) bool {
	return name == "ExitNodeID" || name == "ExitNodeIP" || name == "AutoExitNode"
}

// setExit chooses the exit node that the fields for it name together.
func setExit(p *Preferences, j *Prefs) {
	switch {
	case j.AutoExitNode != "":
		p.ExitNode = AutoExitNode
	case j.ExitNodeID != "":
		p.ExitNode = string(j.ExitNodeID)
	case j.ExitNodeIP.IsValid():
		p.ExitNode = j.ExitNodeIP.String()
	default:
		p.ExitNode = ""
	}
}

// all returns m, a whole set of preferences, as a change of every field. What it
// says of updates is the client's default, and no wish.
func (m maskedPrefs) all() maskedPrefs {
	masked := make(maskedPrefs, 2*len(m))
	for name, v := range m {
		if name == "AutoUpdate" {
			continue
		}
		masked[name], masked[name+"Set"] = v, json.RawMessage("true")
	}
	return masked
}

// unchanged returns an error when a field that cannot change would.
func (m maskedPrefs) unchanged(name string, next, now *Prefs) error {
	switch name {
	case "Config":
		return nil
	case "WantRunning":
		if !next.WantRunning {
			return errors.New("WantRunning: the node runs for as long as its process: end that, or log out")
		}
		return nil
	case "LoggedOut":
		if next.LoggedOut {
			return errors.New("LoggedOut: use logout")
		}
		return nil
	}
	a, b := field(next, name), field(now, name)
	if a.IsValid() && same(a, b) || !a.IsValid() && slices.Contains(empties, string(m[name])) {
		return nil
	}
	return fmt.Errorf("%s: this node cannot change that while it runs: start it with another configuration, if it has that at all", name)
}

// empties are the values of fields that ask for nothing.
var empties = []string{"", "null", "false", "0", `""`, "[]", "{}"}

func field(p *Prefs, name string) reflect.Value { return reflect.ValueOf(p).Elem().FieldByName(name) }

// same reports whether two values of a field mean the same.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
