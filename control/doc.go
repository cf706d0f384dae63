// Package control is the client of a tailnet's control server: it registers a
// node, keeps the stream of network maps running and reports where this node
// can be reached.
//
// It owns the conversation with the server: the server's key, the upgraded and
// Noise-encrypted connection, HTTP/2 over it, registration, the map stream and
// the reports. What it learns it publishes as immutable values in cells: a
// netmap.Netmap and a Status. It leaves to others the storage (Keys, LockStore),
// measuring endpoints and choosing the home region (Config.Endpoints,
// Config.NetInfo), and everything done with the netmap.
//
// Three actors run under Client.Serve: session registers and decides which node
// key is in force, stream holds one map poll and applies its frames, report
// sends lite updates. Each has its own backoff.
//
// The wire types, the server's half of the handshake (Accept, AcceptHandshake,
// NewConn, WriteEarlyPayload) and FrameWriter serve control servers written in
// Go, such as the one of package devnet.
//
// Source: doc/protocol/control.md; CTL numbers in comments are its section 17.
package control
