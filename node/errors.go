package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/packet"
)

// Errors of Start, Up, Dial and Listen; compare with errors.Is (SVC-66). The
// package documentation says when each is returned.
var (
	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("node is closed")

	// ErrNotRunning says that the node is not on its tailnet: it waits for a
	// login or an approval, or has no netmap yet. What it waits for is in the
	// text.
	ErrNotRunning = errors.New("node is not running")

	// ErrNameNotFound says that a name is neither a node of the tailnet nor
	// known to the host's resolver.
	ErrNameNotFound = errors.New("name not found")

	// ErrNoRoute says that no peer owns the address.
	ErrNoRoute = errors.New("no route: the address belongs to no node of the tailnet")

	// ErrNoExitNode says that an address is to be reached through an exit node, and
	// none is in use; why is in the text.
	ErrNoExitNode = errors.New("no exit node is in use")

	// ErrUnknownAddress says that WhoIs finds no node with that address or key.
	ErrUnknownAddress = errors.New("no node of the tailnet has this address or key")

	// ErrRefused says that the peer answered with a reset: nothing listens there.
	ErrRefused = errors.New("connection refused by the peer")

	// ErrRejected says that the peer's access rules refused the flow.
	ErrRejected = errors.New("rejected by the tailnet's policy")

	// ErrNoAnswer says that nothing came back before the time ran out.
	ErrNoAnswer = errors.New("no answer from the peer")

	// ErrBadAuthKey says that the control server refused the auth key.
	ErrBadAuthKey = control.ErrBadAuthKey

	// ErrWrongControl says that ControlURL answers, but not as a control server.
	ErrWrongControl = control.ErrNotControl

	// ErrControlUnreachable says that ControlURL does not answer at all.
	ErrControlUnreachable = control.ErrUnreachable

	// ErrNodeDeleted says that the control server has removed the node. It ends,
	// and a new Node with the same state joins as another one; an ephemeral node
	// with an auth key does so by itself.
	ErrNodeDeleted = control.ErrNodeDeleted

	// ErrKeyExpired says that the node key has expired and no auth key is at
	// hand to renew it.
	ErrKeyExpired = control.ErrKeyExpired
)

// A DialError tells why a Dial failed and what was tried. It unwraps to one of
// the package's errors, and is a net.Error.
type DialError struct {
	Network string // as given to Dial
	Address string // as given to Dial

	Peer      string     // name of the peer that owns the address; empty if none does
	Addr      netip.Addr // what the name resolved to; invalid if it did not
	Path      string     // where packets were sent; empty if nowhere
	LastHeard time.Time  // last authenticated packet of the peer; zero = never

	Reason packet.RejectReason // with ErrRejected: why, in the peer's words
	Err    error
}

// Error describes the failure in one line.
func (e *DialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial %s %s", e.Network, e.Address)
	if e.Peer != "" {
		fmt.Fprintf(&b, " (%s, %v)", e.Peer, e.Addr)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if errors.Is(e.Err, ErrRejected) && e.Reason != 0 {
		fmt.Fprintf(&b, " (%v)", e.Reason)
	}
	if e.Timeout() && e.Peer != "" {
		b.WriteString("; " + e.tried())
	}
	return b.String()
}

// tried says what a dial without an answer did.
func (e *DialError) tried() string {
	path := "no path to it is known"
	if e.Path != "" {
		path = "sent by way of " + e.Path
	}
	if e.LastHeard.IsZero() {
		return path + ", never heard from it"
	}
	return fmt.Sprintf("%s, last heard %v ago", path, time.Since(e.LastHeard).Round(time.Second))
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// socketErrors are the errors of a socket that say the same as those of the package.
var socketErrors = map[syscall.Errno][]error{
	syscall.ECONNREFUSED: {ErrRefused},
	syscall.EACCES:       {ErrRejected},
	syscall.ENETUNREACH:  {ErrNoRoute, ErrNoExitNode},
	syscall.EHOSTUNREACH: {ErrNameNotFound, ErrNoAnswer},
}

// Is makes the error one of package syscall, too, as package net would return it:
// ECONNREFUSED, EACCES if the policy refuses, ENETUNREACH without a route,
// EHOSTUNREACH if there is no such node or it does not answer.
func (e *DialError) Is(target error) bool {
	errno, ok := target.(syscall.Errno)
	return ok && slices.ContainsFunc(socketErrors[errno], func(own error) bool { return errors.Is(e.Err, own) })
}

// Timeout reports whether the time ran out.
func (e *DialError) Timeout() bool { return errors.Is(e.Err, ErrNoAnswer) || isTimeout(e.Err) }

// Temporary is always false; it makes a DialError a net.Error.
func (e *DialError) Temporary() bool { return false }

var _ net.Error = (*DialError)(nil)
