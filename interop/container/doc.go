// Package container runs a program the way a container runtime runs an image whose
// security context gives it nothing: its own mounts, processes and host name, a root
// file system that it only reads, no capabilities and no way to get any
// (no_new_privs), a user without a name. It needs Linux, root, and no runtime.
//
// The network is the caller's to choose: a container is in the network namespace of
// the thread that starts its command. There is no seccomp filter and no cgroup.
package container
