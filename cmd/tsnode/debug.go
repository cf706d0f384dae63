package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/node"
)

func newDebug() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Look for faults of the running node",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDebugFilter(),
		newDebugShow("derp-map", "Print the relays of the tailnet", http.MethodGet, "derpmap", indent),
		newDebugShow("netmap", "Print the network map", http.MethodPost, "debug?action=current-netmap", indent),
		newDebugShow("goroutines", "Print what all goroutines do", http.MethodGet, "goroutines", copyText),
	)
	return cmd
}

// indent prints JSON for people.
func indent(w io.Writer, r io.Reader) error {
	var v json.RawMessage
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		return err
	}
	return printJSON(w, v)
}

func copyText(w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}

// newDebugShow returns a command that prints what an endpoint answers.
func newDebugShow(name, short, method, endpoint string, print func(io.Writer, io.Reader) error) *cobra.Command {
	var o socketFlags
	cmd := &cobra.Command{
		Use: name + " [flags]", Short: short, Long: short + ".\n\n" + asksRunning,
		Example: "  tsnode debug " + name,
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			got, err := c.Stream(cmd.Context(), method, endpoint, nil)
			if err != nil {
				return err
			}
			defer got.Close()
			return print(cmd.OutOrStdout(), got)
		},
	}
	o.add(cmd, false)
	return cmd
}

// filterOptions are the flags of tsnode debug filter.
type filterOptions struct{ socketFlags }

func newDebugFilter() *cobra.Command {
	var o filterOptions
	cmd := &cobra.Command{
		Use:   "filter [flags] PROTOCOL SOURCE DESTINATION",
		Short: "Say whether a connection may begin, and why",
		Long: `Say what the running node would do with the first packet of a connection, and which
rule of the tailnet's policy, or what else, decides that.

PROTOCOL is tcp, udp, sctp, icmp or the number of an IP protocol. SOURCE and
DESTINATION are each a node's name, an IP address, or "self" for the running node,
and behind a colon the port where the protocol has ports: web:80,
[fd7a:115c:a1e0::1]:80. The source's port may be left out. What comes from the running
node is judged as it leaves, all else as it arrives; the node at the other end judges
by its own rules.

The command fails if the packet is dropped.

` + asksRunning,
		Example: `  # may the node "laptop" reach our port 22?
  tsnode debug filter tcp laptop self:22

  # does a packet to 10.0.0.7 find a router? for a script
  tsnode debug filter --json udp self 10.0.0.7:53`,
		Args: usageArgs(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.add(cmd, true)
	return cmd
}

// errDropped says that a packet would not pass.
var errDropped = errors.New("the packet would be dropped")

// run asks the running node about a packet, and prints the verdict. What is no
// packet needs no node.
func (o *filterOptions) run(cmd *cobra.Command, args []string) error {
	if _, err := parseTuple(args); err != nil {
		return &usageError{err}
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	q := url.Values{"proto": {args[0]}, "src": {args[1]}, "dst": {args[2]}}
	p := new(packetLine)
	if err := c.Call(cmd.Context(), http.MethodGet, "tsnode/"+endpointExplain+"?"+q.Encode(), nil, p); err != nil {
		return err
	}
	if o.json {
		err = printJSON(cmd.OutOrStdout(), p)
	} else {
		err = p.print(cmd.OutOrStdout())
	}
	if err == nil && !p.Passes {
		err = errDropped
	}
	return err
}

// A packetLine is a packet with what becomes of it: what the endpoint answers, and
// --json prints.
type packetLine struct {
	node.PacketQuery
	node.PacketVerdict
}

func (p *packetLine) print(w io.Writer) error {
	way, end := "out", "to"
	if p.Inbound {
		way, end = "in", "from"
	}
	text := fmt.Sprintf("%s %s > %s, %s", protocolName(p.Protocol), endText(p.Src), endText(p.Dst), way)
	if p.Peer != "" {
		text += " " + end + " " + p.Peer
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n", text, p.Why)
	return err
}

// endText writes an address, and the port if there is one.
func endText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
