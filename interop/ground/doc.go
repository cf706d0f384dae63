// Package ground builds small internets out of Linux network namespaces: hosts
// on home networks, gateways that do address translation with nftables, and a
// core in between. Sockets, routing and address translation are the kernel's;
// delay, loss, reordering and filters come from a link in userspace between
// gateway and core, a pair of TUN devices joined by this process, because not
// every kernel has netem.
//
//	      Internet (192.0.2.1)            control, relays and STUN listen here
//	       /      |        \              a Link each
//	 gateway   gateway    gateway         a Site each: 198.51.100.N outside
//	  |    |      |          |            192.168.1.0/24 inside, as in every home
//	host  host  host        host          a Host each, processes run in it
//
// All that it needs is root (CAP_NET_ADMIN and CAP_SYS_ADMIN), /dev/net/tun and
// a kernel with network namespaces, veth, bridge and nf_tables; no program has
// to be installed. Namespaces have no names: the kernel takes them back when
// the process ends, however it ends. To look into one, take the process id of a
// program that runs in it: nsenter -t PID -n.
package ground
