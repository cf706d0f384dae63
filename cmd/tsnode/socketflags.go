package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/localapi"
)

// asksRunning is what the help of commands says that ask a node by its socket.
const asksRunning = `The command asks the node that runs on this machine, at its socket: --socket, else
TS_SOCKET, else the first that is served of $XDG_RUNTIME_DIR/tsnode.sock,
/var/run/tsnode/tsnode.sock and those of tailscaled, if it is root's or your own.
'tsnode run --socket PATH' serves one.`

// socketFlags are those of commands that ask a running node.
type socketFlags struct {
	socket string
	json   bool
}

// add defines them; json for those that print data.
func (o *socketFlags) add(cmd *cobra.Command, json bool) {
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "socket of the running node (default: see above)")
	if json {
		f.BoolVar(&o.json, "json", false, "print JSON")
	}
}

// client returns a client of the node's socket.
func (o *socketFlags) client() (*localapi.Client, error) {
	path := o.socket
	if path == "" {
		path = os.Getenv("TS_SOCKET")
	}
	if path != "" {
		return localapi.NewClient(path), nil
	}
	path, err := findSocket(socketPlaces())
	if err != nil {
		return nil, err
	}
	return localapi.NewClient(path), nil
}

// notOn explains what a state other than running means for a command.
func notOn(s *localapi.Status) error {
	switch s.BackendState {
	case localapi.Running.String():
		return nil
	case localapi.NeedsLogin.String():
		if s.AuthURL != "" {
			return fmt.Errorf("the node is not logged in: visit %s", s.AuthURL)
		}
		return errors.New("the node is logged out: run 'tsnode login'")
	case localapi.NeedsMachineAuth.String():
		return errors.New("the node waits for an administrator of the tailnet to approve it")
	}
	return fmt.Errorf("the node is not on its tailnet: its state is %s", s.BackendState)
}
