package main

import (
	"errors"
	"net/netip"
	"os"

	"github.com/seed94491740/tsnode/bench/internal/netns"
)

// Interfaces of the sites.
const (
	cableName = "cable" // of left and right, to each other
	coreName  = "core"  // of left and right, to the core
	farName   = "far"   // of left and right, to each other over a link
)

// Addresses of the ground. Each site's default route leads to the core, which
// passes nothing on: without the cable the two have no way to each other but a
// relay at the core.
var (
	leftAddr  = netip.MustParsePrefix("192.168.77.1/24")
	rightAddr = netip.MustParsePrefix("192.168.77.2/24")
	coreAddr  = netip.MustParseAddr("192.0.2.1") // RFC 5737

	farLeftAddr  = netip.MustParsePrefix("192.168.80.1/24")
	farRightAddr = netip.MustParsePrefix("192.168.80.2/24")
)

// namespaces makes a ground of three network namespaces.
func namespaces() (*ground, error) {
	all, end, err := spaces("left", "right", "core")
	if err != nil {
		return nil, err
	}
	left, right, core := all[0], all[1], all[2]
	err = errors.Join(
		netns.Join(netns.End{Namespace: left, Interface: cableName, Addr: leftAddr}, netns.End{Namespace: right, Interface: cableName, Addr: rightAddr}),
		core.AddAddr("lo", netip.PrefixFrom(coreAddr, coreAddr.BitLen())),
		connect(left, core, coreName, "left", "192.168.78.1/24", "192.168.78.2/24"),
		connect(right, core, coreName, "right", "192.168.79.1/24", "192.168.79.2/24"),
	)
	if err != nil {
		end()
		return nil, err
	}
	return &ground{
		left: site{"left", leftAddr.Addr(), left.Start}, right: site{"right", rightAddr.Addr(), right.Start},
		core: site{"core", coreAddr, core.Start}, about: "two network namespaces joined by a veth pair",
		cable: func(up bool) error {
			if up {
				return errors.Join(left.Up(cableName), right.Up(cableName))
			}
			return errors.Join(left.Down(cableName), right.Down(cableName))
		},
		far: &distance{
			left: site{"left", farLeftAddr.Addr(), left.Start}, right: site{"right", farRightAddr.Addr(), right.Start},
			lay: func() ([]*os.File, error) {
				l, err := left.TUN(farName, farLeftAddr)
				if err != nil {
					return nil, err
				}
				r, err := right.TUN(farName, farRightAddr)
				if err != nil {
					l.Close()
					return nil, err
				}
				return []*os.File{l, r}, nil
			},
		},
		homes: homes, close: end,
	}, nil
}

// spaces makes namespaces; end lets them go.
func spaces(names ...string) (all []*netns.Namespace, end func(), err error) {
	end = func() {
		for _, n := range all {
			n.Close()
		}
	}
	for _, name := range names {
		n, err := netns.New(name)
		if err != nil {
			end()
			return nil, nil, err
		}
		all = append(all, n)
	}
	return all, end, nil
}

// connect joins a namespace to another, by which its default route leads. up is
// the interface to it, down the one that it has in return.
func connect(n, to *netns.Namespace, up, down, own, gateway string) error {
	g := netip.MustParsePrefix(gateway)
	err := netns.Join(netns.End{Namespace: n, Interface: up, Addr: netip.MustParsePrefix(own)}, netns.End{Namespace: to, Interface: down, Addr: g})
	if err != nil {
		return err
	}
	return n.DefaultRoute(up, g.Addr())
}
