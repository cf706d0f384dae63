package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/node"
)

func newDebug() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Look into what a node decides",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDebugFilter())
	return cmd
}

// debugFilterOptions are the flags of tsnode debug filter.
type debugFilterOptions struct {
	nodeFlags
	json bool
}

func newDebugFilter() *cobra.Command {
	var o debugFilterOptions
	cmd := &cobra.Command{
		Use:   "filter [flags] PROTOCOL SOURCE DESTINATION",
		Short: "Say whether a connection may begin, and why",
		Long: `Say what a node would do with the first packet of a connection, and which rule of
the tailnet's policy, or what else, decides that.

PROTOCOL is tcp, udp, sctp, icmp or the number of an IP protocol. SOURCE and
DESTINATION are each a node's name, an IP address, or "self" for this node, and
behind a colon the port where the protocol has ports: web:80, [fd7a:115c:a1e0::1]:80.
The source's port may be left out. What comes from this node is judged as it leaves,
all else as it arrives; the node at the other end judges by its own rules.

The command fails if the packet is dropped.

` + joinsAsOwn + `
--advertise-tags, --advertise-routes and --shields-up make it like the node in
question.`,
		Example: `  # may the node "laptop" reach port 22 of nodes with tag:web?
  TS_AUTHKEY=… tsnode debug filter --advertise-tags tag:web tcp laptop self:22

  # does a packet to 10.0.0.7 find a router? for a script
  TS_AUTHKEY=… tsnode debug filter --accept-routes --json udp self 10.0.0.7:53`,
		Args: usageArgs(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTuple(args)
			if err != nil {
				return &usageError{err}
			}
			return o.once(cmd, func(_ context.Context, n *node.Node) error {
				return o.explain(n, cmd.OutOrStdout(), t)
			})
		},
	}
	f := cmd.Flags()
	o.nodeFlags.add(f)
	o.routes.add(f)
	f.BoolVar(&o.ephemeral, "ephemeral", true, "let the tailnet forget the node when it ends")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// errDropped says that a packet would not pass.
var errDropped = errors.New("the packet would be dropped")

// explain asks the node about a packet, and prints the verdict.
func (o *debugFilterOptions) explain(n *node.Node, w io.Writer, t tuple) error {
	q, err := t.query(n)
	if err != nil {
		return err
	}
	v, err := n.ExplainPacket(q)
	if err != nil {
		return err
	}
	if o.json {
		err = printJSON(w, packetLine{q, v})
	} else {
		err = printVerdict(w, &q, v)
	}
	if err == nil && !v.Passes {
		err = errDropped
	}
	return err
}

// A packetLine is what --json prints of a packet.
type packetLine struct {
	node.PacketQuery
	*node.PacketVerdict
}

func printVerdict(w io.Writer, q *node.PacketQuery, v *node.PacketVerdict) error {
	way, end := "out", "to"
	if q.Inbound {
		way, end = "in", "from"
	}
	if _, err := fmt.Fprintf(w, "%s %s > %s, %s", protocolName(q.Protocol), endText(q.Src), endText(q.Dst), way); err != nil {
		return err
	}
	if v.Peer != "" {
		fmt.Fprintf(w, " %s %s", end, v.Peer)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", v.Why)
	return err
}

// endText writes an address, and the port if there is one.
func endText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
