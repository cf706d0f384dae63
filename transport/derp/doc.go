// Package derp is the client side of DERP, the relay protocol of a tailnet:
// the frame codec that client and relay share, the login, the connection to a
// relay over HTTP, and the actors that keep the connections a node needs.
//
//   - [FrameReader] and the Append and Parse functions are the codec.
//   - [Conn] is one logged-in connection, frame by frame.
//   - [Dialer] reaches a region's relays: TLS, proxies, HTTP upgrade.
//   - [Client] talks to one relay or region, connecting when a call needs it.
//   - [Link] is the actor that keeps one region connected.
//   - [Regions] is the actor that decides which regions are open, and the
//     transport.Underlay that sends through them.
//
// The relay itself is package transport/derp/relay.
//
// Source: doc/protocol/derp.md; requirement numbers DERP-nn are from there.
package derp
