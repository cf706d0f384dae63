package control

import (
	"fmt"

	"github.com/seed94491740/tsnode/key"
)

// CapabilityVersion is what this client claims to understand (control.md
// section 11, CTL-66). It is the version of the Noise handshake, of the /key
// request and of every body.
const CapabilityVersion = 130

// Paths of requests inside the Noise connection (control.md section 6), and of
// the two outside it.
const (
	PathKey          = "/key"
	PathUpgrade      = "/ts2021"
	PathRegister     = "/machine/register"
	PathMap          = "/machine/map"
	PathSetDNS       = "/machine/set-dns"
	PathIDToken      = "/machine/id-token"
	PathFeatureQuery = "/machine/feature/query"

	PathLockBootstrap = "/machine/tka/bootstrap"
	PathLockOffer     = "/machine/tka/sync/offer"
	PathLockSend      = "/machine/tka/sync/send"
)

// HeaderLoadBalance carries node keys as a hint for load balancers; it is not
// authentication (CTL-18).
const HeaderLoadBalance = "Ts-Lb"

// An OptBool is a boolean that may be unknown: true, false or null on the wire.
type OptBool uint8

// Values of OptBool.
const (
	Unknown OptBool = iota
	False
	True
)

// OptBoolOf returns b as a known OptBool.
func OptBoolOf(b bool) OptBool {
	if b {
		return True
	}
	return False
}

// MarshalJSON writes true, false or null.
func (b OptBool) MarshalJSON() ([]byte, error) {
	switch b {
	case True:
		return []byte("true"), nil
	case False:
		return []byte("false"), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads true, false or null.
func (b *OptBool) UnmarshalJSON(text []byte) error {
	switch string(text) {
	case "true":
		*b = True
	case "false":
		*b = False
	case "null":
		*b = Unknown
	default:
		return fmt.Errorf("control: want true, false or null, got %.20q", text)
	}
	return nil
}

// A KeyResponse is the answer to GET /key: the root of trust (control.md
// section 2).
type KeyResponse struct {
	LegacyPublicKey key.MachinePublic `json:"legacyPublicKey"` // retired; zero
	PublicKey       key.MachinePublic `json:"publicKey"`       // the Noise static key
}

// A SetDNSRequest asks for a record of the tailnet's public zone, as ACME's
// dns-01 needs it.
type SetDNSRequest struct {
	Version int
	NodeKey key.NodePublic
	Name    string // "_acme-challenge." and one of DNSConfig.CertDomains
	Type    string // "TXT"
	Value   string
}

// An IDTokenRequest asks for an OIDC token that names this node.
type IDTokenRequest struct {
	CapVersion int
	NodeKey    key.NodePublic
	Audience   string
}

// An IDTokenResponse carries the token.
type IDTokenResponse struct {
	IDToken string `json:"id_token"` // a JWT: a secret
}

// A FeatureQueryRequest asks whether a feature such as "funnel" may be used.
type FeatureQueryRequest struct {
	Feature string
	NodeKey key.NodePublic
}

// A FeatureQueryResponse says whether the feature is on, and where a person
// turns it on.
type FeatureQueryResponse struct {
	Complete   bool   `json:",omitempty"`
	Text       string `json:",omitempty"`
	URL        string `json:",omitempty"`
	ShouldWait bool   `json:",omitempty"`
}
