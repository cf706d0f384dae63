package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// pingInterval is how long after one ping the next is sent, as ping(8) has it.
const pingInterval = time.Second

// pingOptions are the flags of tsnode ping.
type pingOptions struct {
	socketFlags
	count       int
	timeout     time.Duration
	untilDirect bool
	tsmp, icmp  bool
	peerAPI     bool
}

func newPing() *cobra.Command {
	var o pingOptions
	cmd := &cobra.Command{
		Use:   "ping [flags] NODE",
		Short: "Ping a node of the tailnet and show the path to it",
		Long: `Ping a node of the tailnet by name or address, and show the path of each answer. An
address behind a route of another node stands for that node; with --icmp for itself.

The first pings of a peer travel through a relay; meanwhile the nodes look for a
direct path. With --until-direct the command ends when there is one, and fails
if there is none after all pings. Pings inside the tunnel end with the first answer.

` + asksRunning,
		Example: `  # is there a direct path to the node "web"?
  tsnode ping web

  # five pings of its IP stack, for a script
  tsnode ping --icmp --until-direct=false -c 5 --json 100.64.0.7`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), args[0])
		},
	}
	f := cmd.Flags()
	o.add(cmd, true)
	f.IntVarP(&o.count, "c", "c", 10, "how many pings; 0: until interrupted")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "how long to wait for each answer")
	f.BoolVar(&o.untilDirect, "until-direct", true, "stop once a direct path answers; fail if none does")
	f.BoolVar(&o.tsmp, "tsmp", false, "ping the node inside the tunnel, before its packet filter")
	f.BoolVar(&o.icmp, "icmp", false, "ping the node's IP stack inside the tunnel")
	f.BoolVar(&o.peerAPI, "peerapi", false, "ping the node's HTTP service for peers")
	return cmd
}

func (o *pingOptions) kind() string {
	switch {
	case o.tsmp:
		return localapi.PingTSMP
	case o.icmp:
		return localapi.PingICMP
	case o.peerAPI:
		return localapi.PingPeerAPI
	}
	return localapi.PingDisco
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

// run pings with the running node.
func (o *pingOptions) run(ctx context.Context, stdout io.Writer, host string) error {
	if err := o.check(); err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	p, err := findNode(s, host)
	switch {
	case errors.Is(err, node.ErrUnknownAddress):
		return o.pings(ctx, c, stdout, netip.MustParseAddr(host).Unmap()) // a route may lead there
	case err != nil:
		return err
	case len(p.TailscaleIPs) == 0:
		return fmt.Errorf("%s: the node has no address", host)
	case p.ID == s.Self.ID:
		return fmt.Errorf("%s is this node itself", host)
	}
	return o.pings(ctx, c, stdout, p.TailscaleIPs[0])
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
func (o *pingOptions) pings(ctx context.Context, c *localapi.Client, stdout io.Writer, to netip.Addr) error {
	var answered int
	for i := 0; o.count == 0 || i < o.count; i++ {
		sent := time.Now()
		r, err := o.one(ctx, c, to)
		switch {
		case ctx.Err() != nil:
			return ended(ctx.Err())
		case err != nil:
			return err
		}
		if strings.HasSuffix(r.Err, node.ErrNoRoute.Error()) {
			return fmt.Errorf("%v: %w", to, node.ErrNoRoute)
		}
		if err := o.print(stdout, r); err != nil {
			return err
		}
		if r.Err == "" {
			answered++
			if o.untilDirect && (r.Endpoint != "" || o.kind() != localapi.PingDisco) {
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

// one sends one ping. That it is not answered in time is a result, too.
func (o *pingOptions) one(ctx context.Context, c *localapi.Client, to netip.Addr) (*localapi.PingResult, error) {
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r, err := c.Ping(limited, to, o.kind())
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return &localapi.PingResult{IP: to.String(), Err: fmt.Sprintf("no answer in %v", o.timeout)}, nil
	}
	return r, err
}

// print prints one line for a ping.
func (o *pingOptions) print(w io.Writer, r *localapi.PingResult) (err error) {
	switch {
	case o.json:
		return json.NewEncoder(w).Encode(r)
	case r.Err != "":
		_, err = fmt.Fprintf(w, "%s: %s\n", r.IP, r.Err)
		return err
	}
	latency := time.Duration(r.LatencySeconds * float64(time.Second)).Round(10 * time.Microsecond)
	_, err = fmt.Fprintf(w, "%s from %s (%s)%s in %v\n", o.pongWord(), r.NodeName, r.IP, pingPath(r), latency)
	return err
}

// pongWord begins the line of an answer.
func (o *pingOptions) pongWord() string {
	if o.kind() == localapi.PingDisco {
		return "pong"
	}
	return o.kind() + " pong"
}

// pingPath says which way a ping took, outside the tunnel.
func pingPath(r *localapi.PingResult) string {
	switch {
	case r.Endpoint != "":
		return " via direct " + r.Endpoint
	case r.PeerRelay != "":
		return " via peer relay " + r.PeerRelay
	case r.DERPRegionCode != "":
		return " via relay " + r.DERPRegionCode
	}
	return ""
}
