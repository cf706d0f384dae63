package state

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// Names of the stored values (node-services.md section 14).
const (
	keyMachine  = "_machinekey"
	keyProfiles = "_profiles"
	keyCurrent  = "_current-profile"
	keyLegacy   = "_daemon"               // one profile's preferences, before there were several
	keyService  = "server-mode-start-key" // names the profile of an unattended Windows service

	prefixProfile = "profile-"
	prefixServe   = "_serve/"
)

// A Profile is what a node is: its keys, its login and its preferences. Load
// reads it from a store, Save writes it back.
//
// A Profile is plain data with one owner. It never prints its keys.
type Profile struct {
	ID      string             // four hex digits; empty until the first Save after a login (SVC-138)
	Machine key.MachinePrivate // of the installation; outlives every login (CTL-02)
	Node    key.NodePrivate    // of this login; zero = not logged in
	OldNode key.NodePrivate    // the login before, needed for a renewal (CTL-02)
	Lock    key.LockPrivate    // for tailnet lock; kept with the login (SVC-143)

	NodeID  netmap.StableID    // who the server says we are
	User    netmap.UserProfile // the owner; its LoginName names the profile
	Tailnet Tailnet
	Created time.Time // when the profile got its ID; zero in states of older programs
	Prefs   Prefs     // its ControlURL belongs to the login, too

	storeKey string // where Prefs are kept; empty with ID
	prefs    object // what the store held beside the fields above
	config   object
}

// Tailnet is what a profile remembers of the tailnet it belongs to, for
// display.
type Tailnet struct {
	MagicDNSName string // DNS suffix
	DomainName   string
	DisplayName  string
}

// LoggedIn reports whether the profile has a node key that a server knows.
func (p *Profile) LoggedIn() bool { return !p.Node.IsZero() && p.NodeID != "" }

// String names the profile and shows nothing secret.
func (p Profile) String() string {
	return fmt.Sprintf("profile %q of %q at %q", p.ID, p.User.LoginName, p.Prefs.ControlURL)
}

// Format never shows the keys, whatever the verb.
func (p Profile) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// LogValue never shows the keys.
func (p Profile) LogValue() slog.Value { return slog.StringValue(p.String()) }

// persisted is the Config member of stored preferences. No member is ever left
// out: it would keep its old value.
type persisted struct {
	PrivateNodeKey    string
	OldPrivateNodeKey string
	NetworkLockKey    string
	UserProfile       userProfile
	NodeID            netmap.StableID
}

// A userProfile is netmap.UserProfile as it is stored.
type userProfile struct {
	ID            netmap.UserID
	LoginName     string
	DisplayName   string
	ProfilePicURL string
	Groups        []string
}

// A loginProfile is an entry of the list of profiles.
type loginProfile struct {
	ID             string
	Name           string
	NetworkProfile Tailnet
	Key            string
	UserProfile    userProfile
	NodeID         netmap.StableID
	ControlURL     string
	Created        time.Time `json:",omitzero"`
}
