package iface

import (
	"fmt"

	"github.com/seed94491740/tsnode/host"
)

// Commands returns the commands of ip(8) that set up an interface, for an
// administrator to run.
func Commands(name string, s Settings) (lines []string) {
	for _, st := range s.steps(true) {
		lines = append(lines, st.command(name))
	}
	return lines
}

// command is the step as a command.
func (s step) command(name string) string {
	ip, table := "ip", tableOf(name)
	if s.net.Addr().Is6() {
		ip = "ip -6"
	}
	switch s.kind {
	case setLink:
		if s.mtu == 0 {
			return fmt.Sprintf("ip link set dev %s up", name)
		}
		return fmt.Sprintf("ip link set dev %s mtu %d up", name, s.mtu)
	case addAddr:
		return fmt.Sprintf("%s addr replace %v dev %s", ip, s.net, name)
	case addThrow:
		return fmt.Sprintf("%s route replace throw %v table %d", ip, s.net, table)
	case addRoute:
		return fmt.Sprintf("%s route replace %v dev %s table %d", ip, s.net, name, table)
	default:
		return fmt.Sprintf("%s rule add not fwmark %#x/%#x lookup %d priority %d", ip, host.TunnelMark, host.TunnelMask, table, priority)
	}
}
