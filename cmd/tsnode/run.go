package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// runOptions are the flags of tsnode run.
type runOptions struct {
	nodeFlags
	local, remote []string
}

func newRun() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node in the foreground and forward ports",
		Long: `Run a node in the foreground until it is interrupted.

-L listens on this machine and forwards into the tailnet; -R listens on the
tailnet and forwards to a host this machine reaches; both as in ssh, and as
often as you like. Without --state-dir the node is new on every start.

The auth key comes from TS_AUTHKEY, from a file (--auth-key file:PATH) or from
standard input (--auth-key -); without one a login URL is printed.
TS_HOSTNAME and TS_STATE_DIR stand in for their flags.`,
		Example: `  # reach port 80 of the node "web" as http://127.0.0.1:8080
  TS_AUTHKEY=… tsnode run --state-dir ~/.tsnode -L 8080:web:80

  # route to a network that this machine reaches, once an administrator approves
  tsnode run --auth-key file:/run/secrets/authkey --advertise-routes 192.168.1.0/24

  # show a local service to the tailnet as http://myapp
  tsnode run --auth-key file:/run/secrets/authkey --hostname myapp -R 80:localhost:3000`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	o.nodeFlags.add(f)
	o.routes.add(f)
	f.BoolVar(&o.ephemeral, "ephemeral", false, "let the tailnet forget the node when it ends")
	f.Var(&o.memoryLimit, "memory-limit", "bound the memory of connections and packets, as in 64MiB; 12MiB at least")
	f.StringArrayVarP(&o.local, "local", "L", nil, "forward [bind:]port:host:hostport into the tailnet")
	f.StringArrayVarP(&o.remote, "remote", "R", nil, "forward port:host:hostport from the tailnet")
	return cmd
}

// run joins the tailnet and forwards until ctx ends.
func (o *runOptions) run(ctx context.Context, stdin io.Reader, stderr io.Writer) error {
	local, err := parseSpecs(o.local, proxy.ParseLocal)
	if err != nil {
		return err
	}
	remote, err := parseSpecs(o.remote, proxy.ParseRemote)
	if err != nil {
		return err
	}
	n, err := o.node(stdin, stderr)
	if err != nil {
		return err
	}
	return runNode(ctx, n, stderr, local, remote)
}

func parseSpecs(texts []string, parse func(string) (proxy.Spec, error)) (specs []proxy.Spec, err error) {
	for _, t := range texts {
		s, err := parse(t)
		if err != nil {
			return nil, &usageError{err}
		}
		specs = append(specs, s)
	}
	return specs, nil
}

// runNode starts n and its forwards, reports what happens to stderr, and closes
// n when ctx ends or the node does.
func runNode(ctx context.Context, n *node.Node, stderr io.Writer, local, remote []proxy.Spec) error {
	if err := n.Start(); err != nil {
		return err
	}
	err := actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		forwards, err := openForwards(n, local, remote)
		if err != nil {
			return err
		}
		for _, f := range forwards {
			fmt.Fprintf(stderr, "tsnode: forwarding %v to %s\n", f.Addr(), f.Target())
			g.Go(f.Serve)
		}
		return report(ctx, n, stderr)
	})
	closeErr := n.Close()
	if ctx.Err() != nil {
		return closeErr // asked to stop
	}
	return errors.Join(err, closeErr)
}

// report prints the node's events until it stops or ctx ends.
func report(ctx context.Context, n *node.Node, w io.Writer) error {
	for e := range n.Events(ctx) {
		switch e := e.(type) {
		case node.NeedsLogin:
			printLogin(w, e.URL)
		case node.NeedsApproval:
			fmt.Fprintln(w, "tsnode: waiting for an administrator of the tailnet to approve this node")
		case node.Running:
			ip4, ip6 := n.TailscaleIPs()
			fmt.Fprintf(w, "tsnode: running as %s, %v %v\n", n.Status().Self.Name, ip4, ip6)
		case node.KeyExpiring:
			fmt.Fprintf(w, "tsnode: the node key expires at %v: log in again before that\n", e.At)
		case node.KeyExpired:
			fmt.Fprintln(w, "tsnode: the node key has expired")
		case node.KeyExtended:
			fmt.Fprintln(w, "tsnode: the node key has been extended")
		case node.KeyRenewed:
			fmt.Fprintln(w, "tsnode: the node key has been renewed")
		case node.TailnetLocked:
			printLock(w, e)
		case node.Rejoined:
			fmt.Fprintln(w, "tsnode: joined as a new node: the tailnet had removed the old one")
		case node.ControlProblem:
			fmt.Fprintln(w, "tsnode:", e.Err)
			if hint := hintFor(e.Err); hint != "" {
				fmt.Fprintln(w, hint)
			}
		case node.Stopped:
			return e.Err
		}
	}
	return ctx.Err()
}

// hinted adds to the errors of dial what to do about them: they end up in the
// log of a forward.
func hinted(dial proxy.Dial) proxy.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if hint := hintFor(err); hint != "" {
			err = fmt.Errorf("%w. %s", err, hint)
		}
		return c, err
	}
}

// openForwards opens all listeners or none.
func openForwards(n *node.Node, local, remote []proxy.Spec) (forwards []*proxy.Forward, err error) {
	var opened []net.Listener
	defer func() {
		if err != nil {
			for _, ln := range opened {
				ln.Close()
			}
		}
	}()
	var host net.Dialer
	for _, s := range local {
		ln, err := net.Listen("tcp", s.Listen)
		if err != nil {
			return nil, fmt.Errorf("-L %v: %w", s, err)
		}
		opened = append(opened, ln)
		forwards = append(forwards, proxy.NewForward(ln, hinted(n.Dial), s.Target, n.Logger))
	}
	for _, s := range remote {
		ln, err := n.Listen("tcp", s.Listen)
		if err != nil {
			return nil, fmt.Errorf("-R %v: %w", s, err)
		}
		opened = append(opened, ln)
		forwards = append(forwards, proxy.NewForward(ln, host.DialContext, s.Target, n.Logger))
	}
	return forwards, nil
}

// printLock tells how it stands with tailnet lock, which is on.
func printLock(w io.Writer, l node.TailnetLocked) {
	switch {
	case !l.Verified:
		fmt.Fprintln(w, "tsnode: tailnet lock is on and not verified yet: no peer is talked to")
	case l.Sign != "":
		fmt.Fprintln(w, "tsnode: tailnet lock is on and this node is not signed; on a node that may sign, run:\n  "+l.Sign)
	default:
		fmt.Fprintln(w, "tsnode: tailnet lock is on; this node and its peers are signed")
	}
}
