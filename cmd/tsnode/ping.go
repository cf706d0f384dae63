package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/node"
)

// pingInterval is how long after one ping the next is sent, as ping(8) has it.
const pingInterval = time.Second

// pingOptions are the flags of tsnode ping.
type pingOptions struct {
	nodeFlags
	count       int
	timeout     time.Duration
	untilDirect bool
	tsmp, icmp  bool
	peerAPI     bool
	json        bool
}

func newPing() *cobra.Command {
	var o pingOptions
	cmd := &cobra.Command{
		Use:   "ping [flags] NODE",
		Short: "Ping a node of the tailnet and show the path to it",
		Long: `Ping a node of the tailnet by name or address, and show the path of each answer.

The first pings of a peer travel through a relay; meanwhile the nodes look for a
direct path. With --until-direct the command ends when there is one, and fails
if there is none after all pings.

The command joins the tailnet as an ephemeral node of its own for as long as it
runs. The auth key comes from TS_AUTHKEY, file:PATH or standard input, as for
tsnode run.`,
		Example: `  # is there a direct path to the node "web"?
  TS_AUTHKEY=… tsnode ping --until-direct web

  # five pings of its IP stack, for a script
  TS_AUTHKEY=… tsnode ping --icmp --c 5 --json 100.64.0.7`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0])
		},
	}
	f := cmd.Flags()
	o.nodeFlags.add(f)
	f.BoolVar(&o.ephemeral, "ephemeral", true, "let the tailnet forget the node when it ends")
	f.IntVarP(&o.count, "c", "c", 10, "how many pings; 0: until interrupted")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "how long to wait for each answer")
	f.BoolVar(&o.untilDirect, "until-direct", true, "stop once a direct path answers; fail if none does")
	f.BoolVar(&o.tsmp, "tsmp", false, "ping the node inside the tunnel, before its packet filter")
	f.BoolVar(&o.icmp, "icmp", false, "ping the node's IP stack inside the tunnel")
	f.BoolVar(&o.peerAPI, "peerapi", false, "ping the node's HTTP service for peers")
	f.BoolVar(&o.json, "json", false, "print one JSON object for each ping")
	return cmd
}

func (o *pingOptions) kind() node.PingKind {
	switch {
	case o.tsmp:
		return node.PingTSMP
	case o.icmp:
		return node.PingICMP
	case o.peerAPI:
		return node.PingPeerAPI
	}
	return node.PingDisco
}

// check refuses flags that make no sense.
func (o *pingOptions) check() error {
	switch {
	case o.tsmp && o.icmp || o.tsmp && o.peerAPI || o.icmp && o.peerAPI:
		return &usageError{errors.New("want at most one of --tsmp, --icmp and --peerapi")}
	case o.count < 0:
		return &usageError{fmt.Errorf("--c %d: want 0 or more", o.count)}
	case o.timeout <= 0:
		return &usageError{fmt.Errorf("--timeout %v: want a duration such as 5s", o.timeout)}
	}
	return nil
}

// run starts a node, pings with it, and closes it.
func (o *pingOptions) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, host string) error {
	if err := o.check(); err != nil {
		return err
	}
	n, err := o.node(stdin, stderr)
	if err != nil {
		return err
	}
	if !o.verbose {
		n.Logger = newQuietLogger(stderr)
	}
	if err := n.Start(); err != nil {
		return err
	}
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		g.Go(func(context.Context) error { return ended(report(ctx, n, stderr)) })
		return o.pings(ctx, n, stdout, host)
	})
	return errors.Join(err, n.Close())
}

// ended takes the end of a context for no error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errNoDirect says that --until-direct was in vain.
var errNoDirect = errors.New("no direct path was found; the relay is in use")

// errNoPong says that no ping was answered.
var errNoPong = errors.New("no ping was answered")

// pings sends pings and prints their answers.
func (o *pingOptions) pings(ctx context.Context, n *node.Node, stdout io.Writer, host string) error {
	var answered int
	for i := 0; o.count == 0 || i < o.count; i++ {
		sent := time.Now()
		pong, err := o.one(ctx, n, host)
		switch {
		case ctx.Err() != nil:
			return ended(ctx.Err())
		case err != nil && !errors.Is(err, node.ErrNoAnswer):
			return err
		}
		if err := o.print(stdout, host, pong, err); err != nil {
			return err
		}
		if err == nil {
			answered++
			if o.untilDirect && pong.Direct.IsValid() {
				return nil
			}
		}
		if i+1 == o.count {
			break
		}
		if err := actor.Sleep(ctx, max(0, pingInterval-time.Since(sent))); err != nil {
			return ended(err)
		}
	}
	switch {
	case answered == 0:
		return fmt.Errorf("%w: %w", errNoPong, node.ErrNoAnswer)
	case o.untilDirect:
		return errNoDirect
	}
	return nil
}

func (o *pingOptions) one(ctx context.Context, n *node.Node, host string) (*node.Pong, error) {
	if _, err := n.Up(ctx); err != nil { // joining does not count as waiting for the answer
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	pong, err := n.Ping(ctx, host, o.kind())
	if errors.Is(err, context.DeadlineExceeded) {
		err = node.ErrNoAnswer
	}
	return pong, err
}

// A pingLine is what --json prints of each ping.
type pingLine struct {
	*node.Pong
	LatencySeconds float64 `json:",omitempty"`
	Err            string  `json:",omitempty"`
}

func (o *pingOptions) print(w io.Writer, host string, p *node.Pong, err error) error {
	if o.json {
		line := pingLine{Pong: p}
		if err != nil {
			line.Err = err.Error()
		} else {
			line.LatencySeconds = p.Latency.Seconds()
		}
		return json.NewEncoder(w).Encode(line)
	}
	if err != nil {
		_, err = fmt.Fprintf(w, "no answer from %s in %v\n", host, o.timeout)
		return err
	}
	_, err = fmt.Fprintf(w, "%s from %s (%v) via %s in %v\n", pongWord(p.Kind), p.Name, p.IP, p.Path, p.Latency.Round(10*time.Microsecond))
	return err
}

// pongWord begins the line of an answer.
func pongWord(k node.PingKind) string {
	inside := []node.PingKind{node.PingTSMP, node.PingICMP, node.PingPeerAPI}
	if slices.Contains(inside, k) {
		return string(k) + " pong"
	}
	return "pong"
}
