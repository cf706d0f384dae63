package control

import (
	"context"
	"errors"
)

// A command asks session for something; goal returns what session shall work
// for from now on, nil when the command changes nothing.
type command interface{ goal(now goal) goal }

// loginCommand is Client.Login.
type loginCommand struct{}

func (loginCommand) goal(now goal) goal {
	switch g := now.(type) {
	case idle:
		return register{regen: !g.loggedOut}
	case register:
		return g // begins anew: with a new URL
	}
	return nil // a logout goes first
}

// logoutCommand is Client.Logout.
type logoutCommand struct {
	given context.Context // of the caller: bounds the attempt
	done  chan<- error    // has room for one
}

func (m logoutCommand) goal(now goal) goal {
	if g, ok := now.(logout); ok {
		g.done <- errSuperseded
	}
	return logout{m}
}

// expiredCommand says that the key in force has expired.
type expiredCommand struct{}

func (expiredCommand) goal(now goal) goal {
	if i, ok := now.(idle); ok && !i.loggedOut {
		return register{regen: true, expired: true}
	}
	return nil
}

// renewedCommand says that the server has extended an expired key, so that no
// new one is needed (control.md section 9.3).
type renewedCommand struct{}

func (renewedCommand) goal(now goal) goal {
	if g, ok := now.(register); ok && g.expired {
		return idle{resumed: true}
	}
	return nil
}

// unknownCommand says that the server does not know the key in force (CTL-44).
type unknownCommand struct{}

func (unknownCommand) goal(now goal) goal {
	if i, ok := now.(idle); ok && !i.loggedOut {
		return register{}
	}
	return nil
}

var errSuperseded = errors.New("another logout has taken the place of this one")
