// Package vpn is the protocol between a manager and a tunnel: how a front end of
// an operating system (a menu-bar application, a service, a shell of a mobile
// system) drives a tailnet node over one byte stream.
//
// A [Tunnel] is the side with the node. It joins the tailnet when the manager
// says so, tells it how to set up the network interface, which peers there are,
// how they do, and what the node logs. A [Manager] is the other side; front ends
// in other languages have vpn.proto. Packets of the tailnet never travel on the
// stream: they go over the TUN device whose descriptor the manager hands over
// when it starts the tunnel, or, without one, stay in the tunnel's process.
//
// The package knows nodes by the interface [Node] only, and opens nothing: the
// caller brings the [Stream].
//
// Compatibility is promised for this package.
//
// Source: doc/protocol/vpn-tunnel.md, whose requirements comments name as VPN-nn.
package vpn
