package state

import (
	"net/netip"
	"runtime"

	"github.com/seed94491740/tsnode/netmap"
)

// NetfilterOn is the default of Prefs.NetfilterMode; a node without a TUN
// device only keeps the value.
const NetfilterOn = 2

// Prefs are the preferences stored with a profile, named and encoded as in
// node-services.md section 13.5. Its fields are those of the stored object, so
// their number is not ours to choose. What we do not know stays in the store
// (SVC-136).
type Prefs struct {
	ControlURL                 string // empty = the default server
	RouteAll                   bool   // accept subnet routes
	ExitNodeID                 netmap.StableID
	ExitNodeIP                 netip.Addr
	AutoExitNode               string
	InternalExitNodePrior      netmap.StableID
	ExitNodeAllowLANAccess     bool
	CorpDNS                    bool // use the tailnet's DNS settings
	RunSSH                     bool
	RunWebClient               bool
	WantRunning                bool
	LoggedOut                  bool // by the user's wish: do not log in by ourselves
	ShieldsUp                  bool
	AdvertiseTags              []string
	Hostname                   string
	NotepadURLs                bool
	ForceDaemon                bool
	Egg                        bool
	AdvertiseRoutes            []netip.Prefix
	AdvertiseServices          []string
	Sync                       *bool // nil = unset
	NoSNAT                     bool
	NoStatefulFiltering        *bool // nil = unset
	NetfilterMode              int
	OperatorUser               string
	ProfileName                string
	AutoUpdate                 AutoUpdate
	AppConnector               AppConnector
	PostureChecking            bool
	NetfilterKind              string
	RemoteConfig               bool
	RelayServerPort            *uint16 // nil = off
	RelayServerStaticEndpoints []netip.AddrPort
}

// AutoUpdate holds a wish we keep and never act on.
type AutoUpdate struct {
	Check bool
	Apply *bool // nil = unset
}

// AppConnector says whether the node offers to be an app connector.
type AppConnector struct{ Advertise bool }

// DefaultPrefs returns the preferences of a new profile (SVC-135, SVC-45),
// which is what a stored field that is absent means, too.
func DefaultPrefs() Prefs {
	return Prefs{
		RouteAll:            acceptsRoutesByDefault(runtime.GOOS),
		CorpDNS:             true,
		NetfilterMode:       NetfilterOn,
		NoStatefulFiltering: new(true),
		AutoUpdate:          AutoUpdate{Check: true},
	}
}

// acceptsRoutesByDefault is SVC-45 without the sandboxed macOS application,
// which no Go library is.
func acceptsRoutesByDefault(goos string) bool {
	return goos == "windows" || goos == "android" || goos == "ios"
}
