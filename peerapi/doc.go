// Package peerapi is the HTTP service that the nodes of a tailnet ask, and the way
// to ask it of others: plain HTTP/1.1 and cleartext HTTP/2 over TCP inside the
// tunnel. It opens no socket on the host.
//
// The packet filter lets everybody in (SVC-30), so the service authorises by
// itself: who asks is the node that has the connection's source address, and
// nobody else is answered. Browsers are kept out by what they send, and by the
// host name (SVC-86): a page of the web must not reach it through the node of
// whoever looks at it.
//
//	/            a greeting, for any peer; peers ping it
//	/dns-query   DNS (RFC 8484), for nodes of the same user and users of an exit node
//
// There is nothing else. The reference's debug pages would tell a peer about the
// program that the node is part of, which is that program's to tell.
//
// Source: doc/protocol/node-services.md section 8 (SVC-83 to SVC-90).
package peerapi
