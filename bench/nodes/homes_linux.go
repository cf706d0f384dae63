package main

import (
	"errors"
	"net/netip"

	"github.com/seed94491740/tsnode/bench/internal/netns"
)

// Interfaces of a home's router.
const (
	lanName = "lan"
	wanName = "wan"
)

// homes makes a ground whose left and right are each at home, behind a router
// that translates addresses. Both routers, and the core, whose relay answers STUN
// requests, are joined by a namespace that forwards.
func homes() (*ground, error) {
	all, end, err := spaces("left", "left's router", "right", "right's router", "core", "internet")
	if err != nil {
		return nil, err
	}
	left, right, core, internet := all[0], all[2], all[4], all[5]
	err = errors.Join(
		internet.Forward(),
		connect(core, internet, wanName, "core", netip.PrefixFrom(coreAddr, 24).String(), "192.0.2.254/24"),
		settle(left, all[1], "192.168.81.2/24", "192.168.81.1/24"),
		connect(all[1], internet, wanName, "left", "198.51.100.1/24", "198.51.100.254/24"), // RFC 5737
		settle(right, all[3], "192.168.82.2/24", "192.168.82.1/24"),
		connect(all[3], internet, wanName, "right", "203.0.113.1/24", "203.0.113.254/24"),
	)
	if err != nil {
		end()
		return nil, err
	}
	return &ground{
		left: site{"left", netip.MustParseAddr("192.168.81.2"), left.Start}, right: site{"right", netip.MustParseAddr("192.168.82.2"), right.Start},
		core: site{"core", coreAddr, core.Start}, about: "two homes behind routers that translate addresses", close: end,
	}, nil
}

// settle joins a site to its router.
func settle(n, router *netns.Namespace, own, gateway string) error {
	return errors.Join(connect(n, router, coreName, lanName, own, gateway), router.Translate())
}
