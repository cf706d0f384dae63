package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/seed94491740/tsnode/node"
)

// printEvent prints an event that a person may act on.
func printEvent(w io.Writer, n *node.Node, e node.Event) {
	w = at(eventLevel(e), w)
	switch e := e.(type) {
	case node.NeedsLogin:
		io.WriteString(w, loginText(e.URL))
	case node.Running:
		ip4, ip6 := n.TailscaleIPs()
		fmt.Fprintf(w, "tsnode: running as %s, %v %v\n", n.Status().Self.Name, ip4, ip6)
	case node.ControlProblem:
		printProblem(w, e.Err)
	default:
		if text := eventText(e); text != "" {
			fmt.Fprintln(w, "tsnode:", text)
		}
	}
}

// eventLevel is how much an event asks for somebody to act.
func eventLevel(e node.Event) slog.Level {
	switch e := e.(type) {
	case node.KeyExpired:
		return slog.LevelError
	case node.NeedsLogin, node.NeedsApproval, node.KeyExpiring, node.Rejoined:
		return slog.LevelWarn
	case node.TailnetLocked:
		if !e.Verified || e.Sign != "" {
			return slog.LevelWarn
		}
	}
	return slog.LevelInfo
}

// eventText is what there is to say about an event that needs no more than that.
func eventText(e node.Event) string {
	switch e := e.(type) {
	case node.NeedsApproval:
		return "waiting for an administrator of the tailnet to approve this node"
	case node.KeyExpiring:
		return fmt.Sprintf("the node key expires at %v: log in again before that", e.At)
	case node.KeyExpired:
		return "the node key has expired"
	case node.KeyExtended:
		return "the node key has been extended"
	case node.KeyRenewed:
		return "the node key has been renewed"
	case node.TailnetLocked:
		return lockText(e)
	case node.Rejoined:
		return "joined as a new node: the tailnet had removed the old one"
	}
	return ""
}

// lockText tells how it stands with tailnet lock, which is on.
func lockText(l node.TailnetLocked) string {
	switch {
	case !l.Verified:
		return "tailnet lock is on and not verified yet: no peer is talked to"
	case l.Sign != "":
		return "tailnet lock is on and this node is not signed; on a node that may sign, run:\n  " + l.Sign
	}
	return "tailnet lock is on; this node and its peers are signed"
}

// printProblem prints an error and what to do about it. What may pass by itself is
// no more than a warning.
func printProblem(w io.Writer, err error) {
	w = at(slog.LevelError, w)
	if errors.Is(err, node.ErrControlUnreachable) {
		w = at(slog.LevelWarn, w)
	}
	text := fmt.Sprintf("tsnode: %v\n", err)
	if hint := hintFor(err); hint != "" {
		text += hint + "\n"
	}
	io.WriteString(w, text)
}
