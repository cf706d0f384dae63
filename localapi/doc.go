// Package localapi is the API by which programs on the same machine look at a
// node and change it: HTTP on a unix socket, in the shapes that the ecosystem's
// command speaks, so that this works with a node of ours too.
//
// It owns the socket, who may do what, and the JSON of requests and answers. What
// a node is and does stays behind the interface Node. A Server answers, a Client
// asks.
//
// Whoever may connect to the socket may look; to change something takes root, the
// user who runs the node, or the operator (SVC-124). Lists that a client may send,
// and connections, are bounded; a client that stops reading is disconnected.
//
// Source: doc/protocol/node-services.md section 13, observed with the command of
// release 1.102.
package localapi
