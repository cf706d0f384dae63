// Package carry takes across what goes both ways between two connections: streams
// with their half-close, and datagrams until nothing comes any more. It bounds how many
// flows there are at once, such that no source takes all.
//
// Who the two sides are, and what a flow is for, is the caller's business. Source:
// doc/protocol/node-services.md sections 6.2, 6.3 and 19.
package carry
