package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// ipOptions are the flags of tsnode ip.
type ipOptions struct {
	socketFlags
	four, six, one bool
}

func newIP() *cobra.Command {
	var o ipOptions
	cmd := &cobra.Command{
		Use:   "ip [flags] [NODE]",
		Short: "Print tailnet addresses, of the running node or of another",
		Long: `Print the tailnet addresses of the running node, or of the node of a name or
address, one on each line.

` + asksRunning,
		Example: `  tsnode ip -4
  tsnode ip web`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.four && o.six {
				return &usageError{errors.New("want at most one of -4 and -6")}
			}
			addrs, err := o.addresses(cmd.Context(), args)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), addrs)
			}
			for _, a := range addrs {
				fmt.Fprintln(cmd.OutOrStdout(), a)
			}
			return nil
		},
	}
	f := cmd.Flags()
	o.add(cmd, true)
	f.BoolVarP(&o.four, "4", "4", false, "only IPv4")
	f.BoolVarP(&o.six, "6", "6", false, "only IPv6")
	f.BoolVarP(&o.one, "1", "1", false, "only the first")
	return cmd
}

// addresses returns those that are asked for; none is an error.
func (o *ipOptions) addresses(ctx context.Context, args []string) (some []netip.Addr, err error) {
	c, err := o.client()
	if err != nil {
		return nil, err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	of := s.Self
	if len(args) > 0 {
		if of, err = findNode(s, args[0]); err != nil {
			return nil, err
		}
	} else if err := notOn(s); err != nil {
		return nil, err
	}
	for _, a := range of.TailscaleIPs {
		if (a.Is4() && !o.six || a.Is6() && !o.four) && (!o.one || len(some) == 0) {
			some = append(some, a)
		}
	}
	if len(some) == 0 {
		return nil, errors.New("the node has no such address")
	}
	return some, nil
}

// findNode returns the node that has a name, full or its first label alone, an
// address, an ID or a key.
func findNode(s *localapi.Status, text string) (*localapi.PeerStatus, error) {
	if err := notOn(s); err != nil {
		return nil, err
	}
	all := append([]*localapi.PeerStatus{s.Self}, sortedPeers(s)...)
	name := strings.TrimSuffix(text, ".")
	for _, match := range []func(*localapi.PeerStatus) bool{
		func(p *localapi.PeerStatus) bool { return hasAddr(p, text) },
		func(p *localapi.PeerStatus) bool { return strings.EqualFold(strings.TrimSuffix(p.DNSName, "."), name) },
		func(p *localapi.PeerStatus) bool { return strings.EqualFold(p.BaseName(), name) },
		func(p *localapi.PeerStatus) bool { return string(p.ID) == text || p.PublicKey.String() == text },
	} {
		for _, p := range all {
			if match(p) {
				return p, nil
			}
		}
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return nil, fmt.Errorf("%s: %w", text, node.ErrUnknownAddress)
	}
	return nil, fmt.Errorf("%s: %w", text, node.ErrNameNotFound)
}

func hasAddr(p *localapi.PeerStatus, text string) bool {
	want, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	for _, a := range p.TailscaleIPs {
		if a == want.Unmap() {
			return true
		}
	}
	return false
}
