package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/node"
)

// routeFlags are the flags of what a node takes of its tailnet's routes and offers
// of its own.
type routeFlags struct {
	accept                  acceptRoutes
	exitNode                string
	allowLAN, advertiseExit bool
	advertise               []string
	shieldsUp               bool
	ignoreDNS               bool
}

func (o *routeFlags) add(f *pflag.FlagSet) {
	f.Var(&o.accept, "accept-routes", "use routes to networks behind other nodes; =NET,NODE,… uses only those")
	f.Lookup("accept-routes").NoOptDefVal = "true"
	f.StringVar(&o.exitNode, "exit-node", "", "node that traffic to the Internet goes through: name, IP address, ID or auto")
	f.BoolVar(&o.allowLAN, "exit-node-allow-lan-access", false, "reach this machine's own networks past the exit node")
	f.StringSliceVar(&o.advertise, "advertise-routes", nil, "networks to route to, as in 10.0.0.0/8,192.168.1.0/24")
	f.BoolVar(&o.advertiseExit, "advertise-exit-node", false, "offer to route to the Internet")
	f.Var((*inverse)(&o.ignoreDNS), "accept-dns", "use the tailnet's DNS settings; =false: of them only the names of nodes")
	f.Lookup("accept-dns").NoOptDefVal = "true"
	f.BoolVar(&o.shieldsUp, "shields-up", false, "let nobody begin a connection to this node")
}

// set makes the flags n's configuration.
func (o *routeFlags) set(n *node.Node) error {
	n.AcceptRoutes, n.AcceptRoutesFrom = o.accept.on, o.accept.from
	n.ExitNode, n.ExitNodeAllowLANAccess = o.exitNode, o.allowLAN
	n.AdvertiseExitNode, n.ShieldsUp, n.IgnoreDNS = o.advertiseExit, o.shieldsUp, o.ignoreDNS
	for _, text := range o.advertise {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return &usageError{fmt.Errorf("--advertise-routes %q: want a network such as 10.0.0.0/8", text)}
		}
		n.AdvertiseRoutes = append(n.AdvertiseRoutes, p)
	}
	return nil
}

// An inverse is the value of a flag that is true unless it is set to false, which
// makes the variable true.
type inverse bool

// Set implements pflag.Value.
func (i *inverse) Set(text string) error {
	on, err := strconv.ParseBool(text)
	*i = inverse(!on)
	return err
}

// String implements pflag.Value.
func (i *inverse) String() string { return strconv.FormatBool(!bool(*i)) }

// Type implements pflag.Value.
func (*inverse) Type() string { return "bool" }

// An acceptRoutes is the value of --accept-routes: true, false, or a list of
// networks and nodes.
type acceptRoutes struct {
	on   bool
	from []string
}

// Set implements pflag.Value.
func (a *acceptRoutes) Set(text string) error {
	if on, err := strconv.ParseBool(text); err == nil {
		*a = acceptRoutes{on: on}
		return nil
	}
	*a = acceptRoutes{on: true}
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			return errors.New("want true, false, or networks and nodes such as 10.0.0.0/8,router")
		}
		a.from = append(a.from, part)
	}
	return nil
}

// String implements pflag.Value.
func (a *acceptRoutes) String() string {
	if len(a.from) > 0 {
		return strings.Join(a.from, ",")
	}
	return strconv.FormatBool(a.on)
}

// Type implements pflag.Value.
func (*acceptRoutes) Type() string { return "routes" }
