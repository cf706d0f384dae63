// Package socks is the server's side of SOCKS5: CONNECT and UDP ASSOCIATE, with or
// without user name and password. It speaks the protocol on connections that others
// accept, and leaves to a function how to reach what clients ask for.
//
// Sources: RFC 1928, RFC 1929, doc/protocol/node-services.md section 19.
package socks
