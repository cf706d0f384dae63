package control

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// What may be wrong between a node and its control server; compare with
// errors.Is (SVC-66). Status.Err wraps one of them where it applies.
var (
	// ErrUnreachable says that nothing answers at the control URL: a name that
	// does not resolve, a refused or silent connection. It may mend itself.
	ErrUnreachable = errors.New("control server unreachable")

	// ErrNotControl says that what answers at the control URL is no control
	// server, or one too old for this client.
	ErrNotControl = errors.New("not a control server")

	// ErrUntrusted says that the certificate of an https control URL does not
	// verify.
	ErrUntrusted = errors.New("control server's certificate is not trusted")

	// ErrBadAuthKey says that the server refused the auth key, or the OAuth client
	// secret that makes one: unknown, expired or used up.
	ErrBadAuthKey = errors.New("auth key refused")

	// ErrRefused says that the server refused to register this node for another
	// reason, such as a tag that the node may not have.
	ErrRefused = errors.New("registration refused")

	// ErrKeyExpired says that the node key has expired and a person must log in
	// again.
	ErrKeyExpired = errors.New("node key expired")

	// ErrUnsupportedVersion says that the server no longer supports this client.
	ErrUnsupportedVersion = errors.New("control server does not support this client's capability version")

	// ErrNodeUnknown says that the server does not know the node key: the node
	// was removed, or its key belongs to another machine.
	ErrNodeUnknown = errors.New("control server does not know this node")

	// ErrNodeDeleted says that the server has removed the node: it has to join
	// anew.
	ErrNodeDeleted = errors.New("the control server has removed this node")

	// ErrLoggedOut says that the node was logged out.
	ErrLoggedOut = errors.New("logged out")
)

// A StatusError is an HTTP answer that is neither success nor the meaning of
// another error. Text is the server's, for people.
type StatusError struct {
	Path       string
	Code       int
	Text       string        // at most 200 bytes
	RetryAfter time.Duration // with 429: how long to wait (CTL-25)
}

// Error names the request, the status and what the server said.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: %d %s: %q", e.Path, e.Code, http.StatusText(e.Code), e.Text)
}
