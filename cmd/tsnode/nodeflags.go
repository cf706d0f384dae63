package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/node"
)

// nodeFlags are the flags of commands that run a node.
type nodeFlags struct {
	hostname, authKey, loginServer, stateDir string
	ephemeral, verbose                       bool
	tags                                     []string
	port                                     uint16
	memoryLimit                              byteSize
	routes                                   routeFlags
}

// add defines those that all these commands have, with the same defaults.
func (o *nodeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.hostname, "hostname", os.Getenv("TS_HOSTNAME"), "name of the node (default: this machine's)")
	f.StringVar(&o.authKey, "auth-key", "", "auth key: file:PATH, - for standard input, or the key itself")
	f.StringVar(&o.authKey, "authkey", "", "alias of --auth-key")
	f.Lookup("authkey").Hidden = true
	f.StringVar(&o.loginServer, "login-server", node.DefaultControlURL, "URL of the control server")
	f.StringVar(&o.stateDir, "state-dir", os.Getenv("TS_STATE_DIR"), "folder that keeps the node's keys; empty: in memory")
	f.StringSliceVar(&o.tags, "advertise-tags", nil, "tags to ask for, as in tag:web,tag:prod")
	f.Uint16Var(&o.port, "port", 0, "UDP port for direct paths (default: any)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
}

// node returns the node that the flags describe, not yet started.
func (o *nodeFlags) node(stdin io.Reader, stderr io.Writer) (*node.Node, error) {
	authKey, err := readAuthKey(o.authKey, stdin, stderr)
	if err != nil {
		return nil, err
	}
	if o.authKey == "" {
		authKey = os.Getenv("TS_AUTHKEY")
	}
	n := &node.Node{
		Hostname: o.hostname, AuthKey: authKey, ControlURL: o.loginServer, Dir: o.stateDir,
		Ephemeral: o.ephemeral, AdvertiseTags: o.tags, Port: o.port, MemoryLimit: int64(o.memoryLimit),
		Logger: newLogger(stderr, o.verbose),
	}
	return n, o.routes.set(n)
}

// newLogger logs what an operator acts on, and all with verbose.
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// newQuietLogger logs what went wrong.
func newQuietLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
