// Package disco finds and keeps a path to every peer that is talked to. It owns
// the disco protocol: its messages and sealed frames, who may say what, and the
// choice among the addresses of a peer.
//
// Sockets and relays are left to the underlays, what goes over a path to the
// data plane, finding this node's own addresses to endpoints, and telling peers
// our key inside the tunnel (PATH-22) to the data plane. Peer relays are not
// used: their messages are parsed and dropped.
//
// A Prober is one actor with one timer for all peers. paths is its state
// machine, which does no I/O and reads no clock.
//
// Source: doc/protocol/paths.md sections 1 to 5 (PATH-01 to PATH-52). Where paths
// come up or are given up sooner than that says, nothing changes on the wire:
//
//   - A ping is answered in kind while no path is trusted, whether its source is
//     new or not, at most once a second (PATH-39). Behind two NATs that is what
//     makes the first direct path come up in one round trip, not at the next round.
//   - The first round of a session is repeated after half a second.
//   - A CallMeMaybe goes out without a path even if there was nothing to ping
//     (PATH-38), and with endpoints that are not fresh, to be repeated when they
//     turn out to have changed (PATH-46).
//   - A CallMeMaybe that comes, and data that comes over DERP while the direct path
//     has been silent for a second, put the trust in our path off until its next
//     pong (PATH-47): the peer has none that it trusts.
//   - Unanswered probes end the trust after 1.5 s, and an unanswered heartbeat is
//     one (PATH-36).
//   - A candidate known from pings does not expire while it carries data that is
//     answered (PATH-42).
package disco
