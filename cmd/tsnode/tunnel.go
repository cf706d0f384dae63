package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/vpn"
)

// tunnelGroups are the settings that a tunnel's node has; where it joins, the
// manager says.
const tunnelGroups = settings.Node | settings.Route

// tunnelOptions are the flags of tsnode tunnel.
type tunnelOptions struct {
	flags               *pflag.FlagSet
	fd, readFD, writeFD int
	header, group       string
	manager, json       bool

	tun, tunnelNetns, tunnelUser, resolver string // of the manager
}

func newTunnel() *cobra.Command {
	var o tunnelOptions
	cmd := &cobra.Command{
		Use:   "tunnel",
		Short: "Run a node for a front end of the operating system",
		Long: `Run a node that a front end drives: its manager, at the other end of a byte
stream. The stream is standard input and output, a socket (--fd), or two pipes
(--read-fd, --write-fd). The manager says which tailnet to join; the flags say
what it does not. When it closes the stream the command ends.

The packets of the tailnet travel over the descriptor of a TUN device that the
manager passes in. Without one the node has its own stack, and the tailnet
reaches what the node itself offers.

With --manager the command is the manager: it starts a tunnel process with the
same flags, has it join, and prints what it says until interrupted. It is there
to develop front ends against; doc/protocol/vpn-tunnel.md has the protocol. On
Linux it can make the TUN device, set it up as the tunnel asks, and have the
tunnel run without privileges, in another network namespace too (--tun,
--tunnel-user, --tunnel-netns). How the machine resolves names is set up by a
program of yours, --resolver: it is run with the name of the device, and reads
the DNS settings as JSON from its standard input, null when they are undone.`,
		Example: `  # as a front end starts it, with a socket as descriptor 3
  tsnode tunnel --fd 3 --state-dir ~/.tsnode

  # watch what a tunnel says
  TS_AUTHKEY=… tsnode tunnel --manager --json --hostname test`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			std := stdio{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()}
			if err := o.check(); err != nil {
				return err
			}
			if o.manager {
				return o.manage(cmd.Context(), std)
			}
			return o.run(cmd.Context(), std)
		},
	}
	o.flags = cmd.Flags()
	o.flags.IntVar(&o.fd, "fd", 0, "descriptor of the socket to the manager (default: standard input and output)")
	o.flags.IntVar(&o.readFD, "read-fd", 0, "descriptor of the pipe to read, with --write-fd")
	o.flags.IntVar(&o.writeFD, "write-fd", 0, "descriptor of the pipe to write, with --read-fd")
	o.flags.StringVar(&o.header, "header", string(vpn.HeaderAuto), "order of our header: shipped, seed, or auto: the peer's")
	o.flags.StringVar(&o.group, "group", string(vpn.GroupByOwner), "what is a workspace to the manager: owner or node")
	o.flags.BoolVar(&o.manager, "manager", false, "be the manager of a tunnel process")
	o.flags.BoolVar(&o.json, "json", false, "with --manager, print lines of JSON")
	o.flags.StringVar(&o.tun, "tun", "", "with --manager, make a TUN device of this name for the tunnel, and set it up (Linux, root)")
	o.flags.StringVar(&o.tunnelNetns, "tunnel-netns", "", "with --manager, path of the network namespace that the tunnel process runs in (Linux, root)")
	o.flags.StringVar(&o.tunnelUser, "tunnel-user", "", "with --manager, user that the tunnel process runs as (root)")
	o.flags.StringVar(&o.resolver, "resolver", "", "with --tun, program that sets up this machine's resolver, or none to leave it as it is")
	settings.AddFlags(o.flags, tunnelGroups)
	return cmd
}

// check refuses flags that make no sense, and those of the other side, which would
// do nothing.
func (o *tunnelOptions) check() error {
	switch vpn.HeaderOrder(o.header) {
	case vpn.HeaderAuto, vpn.HeaderShipped, vpn.HeaderSeed:
	default:
		return &usageError{fmt.Errorf("header order %q: want %s, %s or %s", o.header, vpn.HeaderAuto, vpn.HeaderShipped, vpn.HeaderSeed)}
	}
	switch vpn.Grouping(o.group) {
	case vpn.GroupByOwner, vpn.GroupByNode:
	default:
		return &usageError{fmt.Errorf("grouping %q: want %s or %s", o.group, vpn.GroupByOwner, vpn.GroupByNode)}
	}
	streams := o.flags.Changed("fd") || o.flags.Changed("read-fd") || o.flags.Changed("write-fd")
	switch {
	case o.manager && streams:
		return &usageError{errors.New("--fd, --read-fd and --write-fd are the tunnel's: leave them out with --manager, which makes the stream itself")}
	case o.manager:
		return o.checkDevice()
	case o.tun != "" || o.tunnelNetns != "" || o.tunnelUser != "" || o.resolver != "":
		return &usageError{errors.New("--tun, --tunnel-netns, --tunnel-user and --resolver are the manager's: add --manager, or have yours pass the device in")}
	case o.json:
		return &usageError{errors.New("--json is the manager's: add --manager, for a tunnel speaks the protocol")}
	}
	return nil
}

// run is the tunnel until the manager ends it or ctx ends.
func (o *tunnelOptions) run(ctx context.Context, std stdio) error {
	s, err := o.settings()
	if err != nil {
		return err
	}
	stream, err := o.stream(std)
	if err != nil {
		return err
	}
	t := &vpn.Tunnel{
		Header: vpn.HeaderOrder(o.header), Grouping: vpn.Grouping(o.group),
		LogLevel: logLevel(s.Verbose), Logger: newQuietLogger(std.err),
		NewNode: func(start vpn.StartOptions) (vpn.Node, error) { return newTunnelNode(s, start) },
	}
	if s.Verbose {
		t.Logger = newLogger(std.err, true)
	}
	return ended(t.Serve(ctx, stream))
}

func (o *tunnelOptions) settings() (*settings.Settings, error) {
	s, err := settings.Sources{Environ: os.Environ(), Flags: o.flags, Groups: tunnelGroups}.Read()
	if err != nil {
		return nil, &usageError{err}
	}
	return s, nil
}

// stream is the one that the flags name.
func (o *tunnelOptions) stream(std stdio) (vpn.Stream, error) {
	pipes := o.readFD != 0 || o.writeFD != 0
	switch {
	case o.fd < 0 || o.readFD < 0 || o.writeFD < 0:
		return nil, &usageError{errors.New("--fd, --read-fd, --write-fd: want descriptors that are open")}
	case o.fd != 0 && pipes:
		return nil, &usageError{errors.New("want either --fd or --read-fd with --write-fd")}
	case o.fd != 0:
		return inheritedSocket(o.fd)
	case pipes && (o.readFD == 0 || o.writeFD == 0 || o.readFD == o.writeFD):
		return nil, &usageError{errors.New("want --read-fd and --write-fd, and two different descriptors: for one socket use --fd")}
	case pipes:
		return inheritedPipes(o.readFD, o.writeFD)
	}
	return stdioStream(std)
}

// stdioStream is standard input and output, on descriptors of their own, if they
// are the process's: what else writes to them is no part of the stream.
func stdioStream(std stdio) (vpn.Stream, error) {
	in, inOK := std.in.(*os.File)
	out, outOK := std.out.(*os.File)
	if inOK && outOK {
		if isTerminal(in) || isTerminal(out) {
			return nil, &usageError{errors.New("standard input or output is a terminal, where no manager is: see --manager")}
		}
		return duplicatedPipes(in, out)
	}
	return vpn.Pair(io.NopCloser(std.in), nopCloser{std.out}), nil
}

// A nopCloser is a writer that is not closed.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
