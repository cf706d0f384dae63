//go:build dragonfly || freebsd || netbsd || openbsd

package host

// scoped marks nothing: routes of these systems are for all sockets.
const scoped = 0
