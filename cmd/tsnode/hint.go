package main

import (
	"errors"
	"fmt"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/state"
)

// hints say what to do about an error that a person can mend.
var hints = []struct {
	err  error
	text string
}{
	{node.ErrBadAuthKey, "Make a new auth key in the admin console of the tailnet, or leave --auth-key out to log in with a browser."},
	{node.ErrNodeDeleted, "An administrator has removed this node: start it again to join as a new one."},
	{node.ErrWrongControl, "Check --login-server: it must be the URL of a control server, as in https://headscale.example.org."},
	{control.ErrUntrusted, "Install CA certificates, in a container at /etc/ssl/certs/ca-certificates.crt; SSL_CERT_FILE names a file of your own."},
	{node.ErrControlUnreachable, "Check --login-server and this machine's network: the control server does not answer."},
	{node.ErrKeyExpired, "Log in again: run with a fresh --auth-key, or without one to log in with a browser."},
	{control.ErrLoggedOut, "Log in with 'tsnode login', which takes an auth key or prints a URL to visit."},
	{node.ErrRejected, "The tailnet's policy denies this connection: ask its administrator for access."},
	{node.ErrNameNotFound, "Check the name: it is neither a node of the tailnet nor known to this machine's resolver."},
	{node.ErrNoAnswer, "Check that the peer runs and is online, and that the tailnet's policy permits the connection."},
	{node.ErrRefused, "Check that something listens on that port of the peer."},
	{node.ErrNoRoute, "No node of the tailnet has that address, and no route in force leads there: see --accept-routes and --exit-node."},
	{errNoNode, "Start one with 'tsnode run --socket PATH', and name the socket with --socket or TS_SOCKET."},
	{localapi.ErrNoServer, "Start one with 'tsnode run --socket PATH', or name another socket with --socket or TS_SOCKET."},
	{state.ErrLocked, "Another process uses that state directory: stop it, or give this one another --state-dir."},
}

// hintFor returns what to do about err; empty when there is nothing to say.
func hintFor(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	return ""
}

// hintedError adds what to do about an error.
func hintedError(err error) error {
	if hint := hintFor(err); hint != "" {
		return fmt.Errorf("%w. %s", err, hint)
	}
	return err
}
