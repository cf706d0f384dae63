package control

import (
	"fmt"
	"time"
)

// A State is where a node stands with its control server (control.md section
// 14.4).
type State uint8

// States.
const (
	StateStarting      State = iota // registering, or waiting for the first netmap
	StateNeedsLogin                 // a person must visit Status.AuthURL
	StateNeedsApproval              // an administrator must approve the device
	StateRunning                    // there is a netmap and this node may use it
	StateLoggedOut                  // Logout was called; Login starts again
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case StateStarting:
		return "starting"
	case StateNeedsLogin:
		return "needs login"
	case StateNeedsApproval:
		return "needs approval"
	case StateRunning:
		return "running"
	case StateLoggedOut:
		return "logged out"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// A Status is a Client's view of its server at one time.
type Status struct {
	State State

	// AuthURL is where a person logs in. It is set in StateNeedsLogin, and in
	// StateRunning while a new login is asked for and the old key still works.
	// It was checked as control.md section 15, rule 6 says.
	AuthURL string

	// BrowserURL is a page that the server would like to be shown.
	BrowserURL string

	// Connected says that the map stream is up. A node that runs goes on with
	// the netmap it has while it is not.
	Connected bool

	// Err is what is wrong now, nil when nothing is. It wraps one of the
	// package's errors where one fits.
	Err error

	// Lock is why the server's word about tailnet lock is not followed; nil when
	// there is nothing to follow.
	Lock error

	// KeyExpiry is when the node key expires; zero means never or unknown.
	KeyExpiry time.Time
}

// merge makes a Status of what session and stream know.
func merge(auth authStatus, poll pollStatus) Status {
	s := Status{AuthURL: auth.url, BrowserURL: poll.browser, Connected: poll.connected, Lock: poll.lock}
	if poll.self != nil {
		s.KeyExpiry = poll.self.KeyExpiry.Time()
	}
	s.State = stateOf(auth, poll)
	switch {
	case auth.loggedOut:
		s.Err = ErrLoggedOut
	case auth.err != nil:
		s.Err = auth.err
	case poll.self != nil && poll.self.Expired:
		s.Err = ErrKeyExpired
	default:
		s.Err = poll.err
	}
	return s
}

func stateOf(auth authStatus, poll pollStatus) State {
	running := poll.self != nil && !poll.self.Expired
	switch {
	case auth.loggedOut:
		return StateLoggedOut
	case running && poll.self.Authorized:
		return StateRunning // also while a new login is under way (CTL-23)
	case auth.url != "":
		return StateNeedsLogin
	case running:
		return StateNeedsApproval // CTL-27
	case poll.self != nil && auth.loggedIn:
		return StateNeedsLogin // the key has ended, its URL is on the way
	}
	return StateStarting
}
