package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/node"
)

// What the flags of routes make of a node.
func TestRouteFlags(t *testing.T) {
	for _, test := range []struct {
		args   []string
		accept bool
		from   []string
		routes int
		ok     bool
	}{
		{nil, false, nil, 0, true},
		{[]string{"--accept-routes"}, true, nil, 0, true},
		{[]string{"--accept-routes=false"}, false, nil, 0, true},
		{[]string{"--accept-routes=10.0.0.0/8, router"}, true, []string{"10.0.0.0/8", "router"}, 0, true},
		{[]string{"--accept-routes=a,,b"}, false, nil, 0, false},
		{[]string{"--advertise-routes", "10.0.0.0/8,192.168.1.0/24", "--advertise-exit-node"}, false, nil, 2, true},
		{[]string{"--advertise-routes", "10.0.0.0"}, false, nil, 0, false},
		{[]string{"--accept-dns"}, false, nil, 0, true},
		{[]string{"--accept-dns=false"}, false, nil, 0, true},
		{[]string{"--accept-dns=some"}, false, nil, 0, false},
		{[]string{"--exit-node", "auto", "--exit-node-allow-lan-access", "--shields-up"}, false, nil, 0, true},
	} {
		var o routeFlags
		var n node.Node
		f := pflag.NewFlagSet("run", pflag.ContinueOnError)
		o.add(f)
		err := f.Parse(test.args)
		if err == nil {
			err = o.set(&n)
		}
		if (err == nil) != test.ok {
			t.Errorf("%q: %v", test.args, err)
		}
		if err != nil {
			continue
		}
		if n.AcceptRoutes != test.accept || !slices.Equal(n.AcceptRoutesFrom, test.from) || len(n.AdvertiseRoutes) != test.routes {
			t.Errorf("%q: %v %q %v", test.args, n.AcceptRoutes, n.AcceptRoutesFrom, n.AdvertiseRoutes)
		}
		if n.IgnoreDNS != slices.Contains(test.args, "--accept-dns=false") {
			t.Errorf("%q: the tailnet's DNS is ignored: %v", test.args, n.IgnoreDNS)
		}
		if slices.Contains(test.args, "auto") && (n.ExitNode != "auto" || !n.ExitNodeAllowLANAccess || !n.ShieldsUp) {
			t.Errorf("%q: %+v", test.args, n.ExitNode)
		}
		if slices.Contains(test.args, "--advertise-exit-node") && (!n.AdvertiseExitNode || n.AdvertiseRoutes[0] != netip.MustParsePrefix("10.0.0.0/8")) {
			t.Errorf("%q: %v", test.args, n.AdvertiseRoutes)
		}
	}
}
