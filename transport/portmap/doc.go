// Package portmap keeps a hole in the home router's NAT: a UDP port of the
// router's public address that leads to this node's IPv4 socket. It speaks
// NAT-PMP (RFC 6886), PCP (RFC 6887) and the port mapping of UPnP internet
// gateways, and renews, checks and releases what they grant.
//
// It owns the one mapping of a node and what is known of the gateway. Which
// port to map and when the host's network has changed it is told; what the
// address is good for is left to endpoints and netcheck. It never listens to
// what a gateway announces unasked: a restart is noticed in the next answer.
//
// UPnP is spoken by hand, with the token reader of encoding/xml: it adds 57 kB
// to a stripped program where github.com/huin/goupnp v1.3.1 adds 426 kB and
// fetches descriptions past the host.Network.
//
// Source: doc/protocol/paths.md section 13 (PATH-96 to PATH-103).
package portmap
