// Package tsnode is the root of the module; it holds no code. The library is
// package node, the test kit package devnet, and the command cmd/tsnode.
// ARCHITECTURE.md tells how they hang together.
package tsnode
