package host

import "golang.org/x/sys/unix"

// scoped marks a default route for sockets that are bound to its interface.
const scoped = unix.RTF_IFSCOPE
