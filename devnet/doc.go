// Package devnet is a tailnet in the process: a control server, relays and STUN
// on loopback, for tests, demos and offline development. Nodes of this module,
// tsnet and tailscaled join it unmodified.
//
//	tailnet, err := devnet.Start(ctx, devnet.Config{})
//	…
//	defer tailnet.Close()
//	n := &node.Node{ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{})}
//
// In a test, New starts one and closes it at the end:
//
//	tailnet := devnet.New(t, devnet.Config{})
//
// A policy (Config.Policy, Net.SetPolicy) says who may reach whom. Beside what
// an administrator of a tailnet can do, a Net has hooks that make it misbehave:
// it drops streams, delays and forges frames, stops and starts its servers,
// refuses requests.
//
// # What it owns
//
// Who is a member, under which name and address, and what the policy lets pass.
// All of that is one state, changed by one goroutine; what it knows about the
// protocol is plain functions on that state. It is no control server for
// production: everything lives on one machine, and whoever reaches its login
// page may approve a login.
//
// Source: doc/protocol/control.md, from the server's side; CTL numbers in
// comments are its section 17. It behaves as the hosted service does, or, with
// Config.Headscale, as Headscale where the two differ (section 16).
package devnet
