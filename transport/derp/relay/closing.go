package relay

import (
	"errors"
	"io"
	"net"
	"os"
)

// A CloseReason says why a connection ended. Each is counted.
type CloseReason int

// The reasons; the text of each is the label of its counter.
const (
	ClosedByClient    CloseReason = iota // the client hung up
	ClosedByServer                       // Close, Shutdown, or the end of Accept's context
	ClosedByMesh                         // a mesh peer asked for it (DERP-89)
	ClosedTransport                      // reading failed below DERP
	ClosedBadLogin                       // what came before or in the login is not a login
	ClosedLoginTime                      // the login took too long (DERP-22)
	ClosedLoginFlood                     // too many logins at once
	ClosedNotAdmitted                    // Options.Verify said no
	ClosedOversized                      // a frame above its limit (DERP-08)
	ClosedMalformed                      // a frame that breaks the rules of its type
	ClosedNoMeshKey                      // a mesh frame of a client without the mesh key (DERP-86)
	ClosedWriteTime                      // the client took too long to accept a write (DERP-63)
	ClosedWriteError                     // writing failed
	ClosedWatchFlood                     // a mesh watcher did not keep up (DERP-88)
	ClosedPanic                          // an error of this program
	closeReasons
)

var closeNames = [closeReasons]string{
	"client", "server", "mesh", "transport", "bad_login", "login_timeout", "login_flood", "not_admitted",
	"oversized", "malformed", "no_mesh_key", "write_timeout", "write_error", "watch_flood", "panic",
}

// String returns the reason's label.
func (r CloseReason) String() string { return closeNames[r] }

// A closeError is an error that ends a connection, with its reason.
type closeError struct {
	why CloseReason
	err error
}

func (e *closeError) Error() string { return e.err.Error() }
func (e *closeError) Unwrap() error { return e.err }

// because marks an error as the reason for a connection's end.
func because(why CloseReason, err error) error { return &closeError{why, err} }

// closeReason returns why a connection with this last error ended.
func closeReason(err error) CloseReason {
	var marked *closeError
	switch {
	case errors.As(err, &marked):
		return marked.why
	case err == nil, errors.Is(err, io.EOF):
		return ClosedByClient
	case errors.Is(err, net.ErrClosed):
		return ClosedByServer
	}
	return ClosedTransport
}

// writeError marks an error of writing.
func writeError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return because(ClosedWriteTime, err)
	}
	return because(ClosedWriteError, err)
}

// byItself reports whether an end is nobody's mistake: the client hung up or
// the server was told to close.
func byItself(err error) bool {
	why := closeReason(err)
	return why == ClosedByClient || why == ClosedByServer
}
