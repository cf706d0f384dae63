package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
)

// A site is where processes run.
type site struct {
	name  string
	ip    netip.Addr // the kernel's, for the nodes' traffic
	start func(*exec.Cmd) error
}

// A ground is two sites for nodes, and one for the control server.
type ground struct {
	left, right, core site
	about             string

	cable func(up bool) error     // joins left and right, or parts them; nil: always joined
	far   *distance               // left and right at the ends of a link; nil: there is none
	homes func() (*ground, error) // makes a ground whose sites are behind routers that translate; nil: there is none
	close func()
}

func (g *ground) String() string { return g.about }

// loopback is a ground without root.
func loopback() *ground {
	here := func(name, ip string) site { return site{name, netip.MustParseAddr(ip), (*exec.Cmd).Start} }
	return &ground{
		left: here("left", "127.0.0.1"), right: here("right", "127.0.0.2"), core: here("core", "127.0.0.1"),
		about: "all on loopback: network namespaces need root", close: func() {},
	}
}

// newGround returns the best ground that can be had.
func newGround() (*ground, error) {
	if os.Geteuid() != 0 {
		return loopback(), nil
	}
	g, err := namespaces()
	if err != nil {
		return nil, fmt.Errorf("%w: run it as another user to measure on loopback", err)
	}
	return g, nil
}
