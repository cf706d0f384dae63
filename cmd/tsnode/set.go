package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/localapi"
)

// setOptions are the flags of tsnode set.
type setOptions struct {
	socketFlags
	hostname, exitNode      string
	acceptRoutes, shieldsUp bool
	acceptDNS, allowLAN     bool
	advertiseExit, force    bool
	routes, acceptFrom      []string
}

func newSet() *cobra.Command {
	var o setOptions
	cmd := &cobra.Command{
		Use:   "set [flags]",
		Short: "Change preferences of the running node",
		Long: `Change preferences of the running node. What no flag names stays as it is. Changes
are in force at once, and last until the node's process ends. With --json the
preferences in force are printed.

While an exit node is set, traffic to the Internet goes through it or nowhere. So one
that the tailnet does not have, or that does not offer to be one, is refused, unless
--force is there, too.

` + asksRunning,
		Example: `  # send Internet traffic through the node "gateway", and no longer
  tsnode set --exit-node gateway
  tsnode set --exit-node=

  # take routes to one network, and those of one node
  tsnode set --accept-routes=10.0.0.0/8,router

  tsnode set --hostname db2 --shields-up
  tsnode set --advertise-routes 192.168.1.0/24,10.0.0.0/8`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	o.add(cmd, true)
	f.StringVar(&o.hostname, "hostname", "", "name to ask for; empty: this machine's")
	f.StringVar(&o.exitNode, "exit-node", "", "node for traffic to the Internet, by name, address or ID; auto: any; empty: none")
	f.BoolVar(&o.force, "force", false, "set an --exit-node that is none now")
	f.BoolVar(&o.allowLAN, "exit-node-allow-lan-access", false, "reach the networks that this machine is in past the exit node")
	f.Var(settings.RouteChoice(&o.acceptRoutes, &o.acceptFrom), "accept-routes", "take routes that other nodes offer; =NET,NODE,… takes only those")
	f.Lookup("accept-routes").NoOptDefVal = "true"
	f.BoolVar(&o.acceptDNS, "accept-dns", true, "use the tailnet's resolvers and search domains")
	f.BoolVar(&o.shieldsUp, "shields-up", false, "let nobody begin a connection with this node")
	f.StringSliceVar(&o.routes, "advertise-routes", nil, "networks to offer to route to; empty: none")
	f.BoolVar(&o.advertiseExit, "advertise-exit-node", false, "offer to route to the Internet")
	return cmd
}

func (o *setOptions) run(cmd *cobra.Command) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	now, err := c.Prefs(cmd.Context())
	if err != nil {
		return err
	}
	fields, err := o.fields(cmd.Flags(), now)
	if err != nil {
		return &usageError{err}
	}
	if o.exitNode != "" && !o.force {
		s, err := c.Status(cmd.Context())
		if err != nil {
			return err
		}
		if err := checkExit(s, o.exitNode, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	p, err := c.EditPrefs(cmd.Context(), fields)
	if err != nil || !o.json {
		return err
	}
	return printJSON(cmd.OutOrStdout(), p)
}

// fields returns what the flags that were given change, by the names of the API.
func (o *setOptions) fields(f *pflag.FlagSet, now *localapi.Prefs) (map[string]any, error) {
	all := map[string]any{}
	for flag, field := range map[string]struct {
		name string
		v    any
	}{
		"hostname":                   {"Hostname", o.hostname},
		"exit-node-allow-lan-access": {"ExitNodeAllowLANAccess", o.allowLAN},
		"accept-dns":                 {"CorpDNS", o.acceptDNS},
		"shields-up":                 {"ShieldsUp", o.shieldsUp},
	} {
		if f.Changed(flag) {
			all[field.name] = field.v
		}
	}
	if f.Changed("accept-routes") {
		all["RouteAll"], all["AcceptRoutesFrom"] = o.acceptRoutes, o.acceptFrom
	}
	if f.Changed("exit-node") {
		o.setExitNode(all)
	}
	if f.Changed("advertise-routes") || f.Changed("advertise-exit-node") {
		routes, err := o.advertised(f, now.AdvertiseRoutes)
		if err != nil {
			return nil, err
		}
		all["AdvertiseRoutes"] = routes
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to set: name a preference, as in --shields-up")
	}
	return all, nil
}

// setExitNode chooses the field by what the flag holds: the node takes a name for
// an ID, too.
func (o *setOptions) setExitNode(all map[string]any) {
	if isAutoExit(o.exitNode) {
		all["AutoExitNode"] = "any"
		return
	}
	all["ExitNodeID"] = o.exitNode
}

// advertised returns all routes to offer: those of an exit node among them.
func (o *setOptions) advertised(f *pflag.FlagSet, now []netip.Prefix) (routes []netip.Prefix, err error) {
	exits := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	isExit := func(p netip.Prefix) bool { return p.Bits() == 0 }
	exit := slices.ContainsFunc(now, isExit)
	routes = slices.DeleteFunc(slices.Clone(now), isExit)
	if f.Changed("advertise-exit-node") {
		exit = o.advertiseExit
	}
	if f.Changed("advertise-routes") {
		routes = []netip.Prefix{}
		for _, text := range o.routes {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("--advertise-routes %s: want a network such as 10.0.0.0/24", text)
			}
			routes = append(routes, p)
		}
	}
	if exit {
		routes = append(routes, exits...)
	}
	return routes, nil
}
