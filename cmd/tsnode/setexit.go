package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/seed94491740/tsnode/localapi"
)

// errNoExit begins why an exit node is refused: with it all traffic to the Internet
// would fail.
var errNoExit = errors.New("traffic to the Internet would go nowhere")

// checkExit returns why a node cannot be the exit node of the running one, and warns
// of one that is offline.
func checkExit(s *localapi.Status, name string, warn io.Writer) error {
	const force = "--force sets it all the same"
	if isAutoExit(name) {
		for _, p := range s.Peer {
			if p.ExitNodeOption {
				return nil
			}
		}
		return fmt.Errorf("--exit-node %s: %w: no node of the tailnet offers to be an exit node; %s", name, errNoExit, force)
	}
	p, err := findNode(s, name)
	switch {
	case err != nil:
		return fmt.Errorf("--exit-node %s: %w: %w; 'tsnode status' lists the nodes, %s", name, errNoExit, err, force)
	case p.ID == s.Self.ID:
		return fmt.Errorf("--exit-node %s: %w: that is this node itself", name, errNoExit)
	case !p.ExitNodeOption:
		return fmt.Errorf("--exit-node %s: %w: that node does not offer to be an exit node, or no administrator has approved it as one; %s", name, errNoExit, force)
	case !p.Online:
		fmt.Fprintf(warn, "tsnode: warning: --exit-node %s: that node is offline: %v until it is back\n", name, errNoExit)
	}
	return nil
}

// isAutoExit reports whether a name stands for any exit node.
func isAutoExit(name string) bool { return name == localapi.AutoExitNode || name == "auto:any" }
