// Package disco finds and keeps a path to every peer that is talked to. It owns
// the disco protocol: its messages and sealed frames, who may say what, and the
// choice among the addresses of a peer.
//
// Sockets and relays are left to the underlays, what goes over a path to the
// data plane, and finding this node's own addresses to endpoints.
//
// Source: doc/protocol/paths.md sections 1 to 5 (PATH-01 to PATH-52).
package disco
