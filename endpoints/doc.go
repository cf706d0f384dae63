// Package endpoints finds where this node can be reached: by port mapping, by
// what STUN servers see, and at the addresses of its own interfaces. The same
// discovery chooses the home region.
//
// It owns when a discovery runs, what it collects and what is remembered of
// earlier ones. Measuring is left to netcheck, mapping ports to
// transport/portmap, the sockets to transport/udp, and telling control and
// peers to whoever reads the cells.
//
// The metadata services of clouds, which would tell a machine its public
// address, are never asked: a node does not talk to whom it was not told to.
//
// Source: doc/protocol/paths.md section 4 (PATH-23 to PATH-30) and
// doc/protocol/netcheck.md sections 7 and 9 (NC-44 to NC-46, NC-52 to NC-55).
package endpoints
