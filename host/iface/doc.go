// Package iface sets up the network interface of a TUN device: its MTU and
// addresses, the networks that go into it, and the rule that keeps the node's own
// packets out of it. It is the part of a front end that changes the operating
// system (VPN-56), and there for Linux.
//
// Routes are in a table of the interface's own, which a rule has the kernel look
// into before the others, for all packets but those with host.TunnelMark: so the
// node reaches its peers past the interface whatever goes into it, even everything
// (VPN-51), and the routes of others stay as they are. A network that stays out of
// the tunnel is a route of type throw there.
//
// [Settings] are turned into steps, each of which is a message to the kernel
// (rtnetlink(7)) or a command of ip(8), for who lacks the right to send it. An
// [Interface] takes the steps that lead from the settings in force to new ones.
//
// With the sysctl net.ipv4.conf.*.rp_filter at 1 the kernel drops what peers send
// while everything goes into the tunnel; 0 and 2 are good.
package iface
