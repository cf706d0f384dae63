package control

import (
	"context"
	"errors"
)

// A command asks session for something; goal returns what session shall work
// for from now on, nil when the command changes nothing.
type command interface{ goal(now goal) goal }

// loginCommand is Client.Login.
type loginCommand struct{ attempt *attempt }

// An attempt is a login with an auth key of its own. nil is one without.
type attempt struct {
	given context.Context // of the caller: bounds the attempt
	key   joinKey
	done  chan<- error // has room for one
	back  goal         // what goes on when it fails
}

// end tells the caller what became of the attempt; the first word counts.
func (a *attempt) end(err error) {
	if a == nil {
		return
	}
	select {
	case a.done <- err:
	default:
	}
}

func (m *loginCommand) goal(now goal) goal {
	next := &register{regen: true, attempt: m.attempt}
	back := now
	switch g := now.(type) {
	case *idle:
		next.regen = !g.loggedOut
		back = &idle{loggedOut: g.loggedOut, resumed: true}
	case *register:
		if next.cause = g.cause; m.attempt == nil {
			next.regen = g.regen // begins anew: with a new URL
		}
		if g.attempt != nil {
			back = g.attempt.back
		}
	case *logout:
		m.attempt.end(errSuperseded)
		return nil // a logout goes first
	}
	if m.attempt != nil {
		m.attempt.back = back
	}
	return next
}

// logoutCommand is Client.Logout.
type logoutCommand struct {
	given context.Context // of the caller: bounds the attempt
	done  chan<- error    // has room for one
}

func (m *logoutCommand) goal(now goal) goal {
	if g, ok := now.(*logout); ok {
		g.done <- errSuperseded
	}
	return &logout{*m}
}

// expiredCommand says that the key in force has expired.
type expiredCommand struct{}

func (*expiredCommand) goal(now goal) goal {
	if i, ok := now.(*idle); ok && !i.loggedOut {
		return &register{regen: true, cause: ErrKeyExpired}
	}
	return nil
}

// renewedCommand says that the server has extended an expired key, so that no
// new one is needed (control.md section 9.3).
type renewedCommand struct{}

func (*renewedCommand) goal(now goal) goal {
	if g, ok := now.(*register); ok && g.cause == ErrKeyExpired && g.attempt == nil {
		return &idle{resumed: true}
	}
	return nil
}

// unknownCommand says that the server does not know the key in force (CTL-44).
type unknownCommand struct{}

func (*unknownCommand) goal(now goal) goal {
	if i, ok := now.(*idle); ok && !i.loggedOut {
		return &reclaim{}
	}
	return nil
}

var errSuperseded = errors.New("another login or logout has taken the place of this one")
