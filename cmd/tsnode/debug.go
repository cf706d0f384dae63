package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

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
		newDebugShow("derp-map", "Print the relays of the tailnet", http.MethodGet, "derpmap"),
		newDebugShow("netmap", "Print the network map", http.MethodPost, "debug?action=current-netmap"),
		newDebugShow("goroutines", "Print what all goroutines do", http.MethodGet, "goroutines"),
	)
	return cmd
}

// newDebugShow returns a command that prints what an endpoint answers.
func newDebugShow(name, short, method, endpoint string) *cobra.Command {
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
			_, err = io.Copy(cmd.OutOrStdout(), got)
			return err
		},
	}
	o.add(cmd, false)
	return cmd
}

// filterOptions are the flags of tsnode debug filter.
type filterOptions struct {
	socketFlags
	out   bool
	proto string
}

func newDebugFilter() *cobra.Command {
	var o filterOptions
	cmd := &cobra.Command{
		Use:   "filter [flags] SRC DST",
		Short: "Say what the running node would do with a packet, and why",
		Long: `Say what the running node would do with the first packet of a flow from a peer, or
with --out to one, by the routes and the policy in force; and why. SRC and DST are
addresses with ports, of protocols that have them.

` + asksRunning,
		Example: `  # may that node connect to our port 22?
  tsnode debug filter 100.64.0.7:50000 100.64.0.1:22

  tsnode debug filter --proto icmp 100.64.0.7 100.64.0.1`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.add(cmd, true)
	cmd.Flags().BoolVar(&o.out, "out", false, "a packet that this node sends")
	cmd.Flags().StringVar(&o.proto, "proto", "tcp", "tcp, udp, icmp, icmpv6, sctp or a number")
	return cmd
}

func (o *filterOptions) run(cmd *cobra.Command, args []string) error {
	if _, err := protocolOf(o.proto); err != nil {
		return &usageError{err}
	}
	q := url.Values{"proto": {o.proto}, "inbound": {strconv.FormatBool(!o.out)}}
	for i, name := range []string{"src", "dst"} {
		a, err := endOf(args[i])
		if err != nil {
			return &usageError{err}
		}
		q.Set(name, a.String())
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	v := new(node.PacketVerdict)
	if err := c.Call(cmd.Context(), http.MethodGet, "tsnode/"+endpointExplain+"?"+q.Encode(), nil, v); err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	if v.Peer != "" {
		fmt.Fprintln(cmd.OutOrStdout(), "peer:", v.Peer)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), v.Why)
	return err
}

// endOf reads an address with or without a port.
func endOf(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, fmt.Errorf("%q: want an IP address, with or without a port", text)
	}
	return a, nil
}

// protocols are those of IP that have a name here.
var protocols = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

// protocolOf reads the name or number of a protocol.
func protocolOf(text string) (uint8, error) {
	if p, ok := protocols[text]; ok {
		return p, nil
	}
	p, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, errors.New("protocol: want tcp, udp, icmp, icmpv6, sctp or a number to 255")
	}
	return uint8(p), nil
}
