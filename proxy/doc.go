// Package proxy carries connections and datagrams between this machine and the
// tailnet: port forwards in both directions, as ssh's -L and -R, and proxies whose
// clients name the destination, as ssh's -D: SOCKS5 and HTTP.
//
// A Set is the live collection of them. It opens what is wanted and ends what is no
// longer, leaves alone what did not change, bounds how many connections there are,
// in all and from each source, and tells how each forward fares.
//
// It owns their listeners and connections, and takes the node and the machine as
// small interfaces. Source: doc/protocol/node-services.md sections 6.2, 6.3, 10 and
// 19; the SOCKS5 protocol is in package proxy/socks, the PROXY protocol is
// HAProxy's (proxy-protocol.txt, versions 1 and 2).
package proxy
