// Package devnet is a tailnet in the process: a control server, relays and STUN
// on loopback, for tests, demos and offline development. Nodes of this module,
// tsnet and tailscaled join it unmodified.
//
//	tailnet, err := devnet.Start(ctx, devnet.Config{})
//	…
//	defer tailnet.Close()
//	n := &node.Node{ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{})}
//
// It owns who is a member, under which name and address, and what the policy
// lets pass. It is no control server for production: everything lives on one
// machine, and whoever reaches its login page may approve a login.
//
// Source: doc/protocol/control.md, from the server's side; CTL numbers in
// comments are its section 17.
package devnet
