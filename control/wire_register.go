package control

import (
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A RegisterRequest asks the server to accept a node key (control.md section
// 7.1). Fields without a value are left out: Headscale refuses a body with an
// empty key (CTL-03).
type RegisterRequest struct {
	Version          int
	NodeKey          key.NodePublic
	OldNodeKey       key.NodePublic `json:",omitzero"`  // the key that NodeKey replaces
	NLKey            key.LockPublic `json:",omitzero"`  // tailnet-lock key
	Auth             *RegisterAuth  `json:",omitempty"` // nil without an auth key
	Expiry           time.Time      `json:",omitzero"`  // in the past: expire NodeKey now, which is a logout
	Followup         string         `json:",omitempty"` // AuthURL of the answer this request follows up
	Hostinfo         *Hostinfo      // never nil
	Ephemeral        bool           `json:",omitempty"` // forget the node when it is gone
	NodeKeySignature []byte         `json:",omitempty"` // tailnet lock's signature of NodeKey
	Tailnet          string         `json:",omitempty"` // wanted tailnet; "required:" in front makes it a must
}

// A RegisterAuth carries a pre-authentication key.
type RegisterAuth struct {
	AuthKey string `json:",omitempty"` // a secret
}

// A RegisterResponse says whether the key was accepted (control.md section
// 7.2). With Error set, no other field counts.
type RegisterResponse struct {
	User              User
	Login             Login
	NodeKeyExpired    bool   // NodeKey has expired: register a new one
	MachineAuthorized bool   // false: an administrator has yet to approve the device
	AuthURL           string // a person must visit it
	NodeKeySignature  []byte // of the old key, to be rotated to a new one
	Error             string // why registration was refused; HTTP status is 200
}

// A User owns nodes.
type User struct {
	ID            netmap.UserID
	DisplayName   string
	ProfilePicURL string    `json:",omitempty"`
	Created       time.Time `json:",omitzero"`
}

// A Login is how a User has proven who he is.
type Login struct {
	ID            int64
	Provider      string
	LoginName     string
	DisplayName   string
	ProfilePicURL string `json:",omitempty"`
}

// logoutExpiry is the instant in the past that means logout; the reference
// client uses this one (control.md section 7.4).
var logoutExpiry = time.Unix(123, 0).UTC()
