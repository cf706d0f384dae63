package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/internal/ownnet"
	"github.com/seed94491740/tsnode/packet"
)

// A rule of a sandbox makes a system call fail.
type rule struct {
	call  uintptr
	args  map[int]uint32 // arguments that must be equal, by number; nil for every call
	errno unix.Errno
}

// sandboxed runs the calling test again in a process of its own and reports
// whether this is that process, which is then in a sandbox with these rules.
func sandboxed(t *testing.T, rules []rule) bool {
	t.Helper()
	child, err := ownnet.Process(t, nil)
	switch {
	case err != nil:
		t.Fatal(err)
	case child:
		if err := enterSandbox(rules); err != nil {
			t.Fatalf("enter the sandbox: %v", err)
		}
	}
	return child
}

// enterSandbox installs a filter of seccomp(2) in all threads, for good. It
// needs no privilege, for the process gives up the gaining of any.
func enterSandbox(rules []rule) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := filter(rules)
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(program)
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	if r != 0 {
		return fmt.Errorf("thread %d cannot have the filter", r)
	}
	return nil
}

// filter returns the program for rules. It loads from struct seccomp_data:
// the number of the call at 0, argument i at 16 + 8 i, of which it compares the
// low half, as little-endian machines store it.
func filter(rules []rule) (p []unix.SockFilter) {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	for _, r := range rules {
		type test struct{ offset, want uint32 }
		tests := []test{{0, uint32(r.call)}}
		for i, want := range r.args {
			tests = append(tests, test{16 + 8*uint32(i), want})
		}
		for i, c := range tests {
			skip := 2*(len(tests)-i-1) + 1 // the rest of the tests and the verdict
			p = append(p, load(c.offset), unix.SockFilter{
				Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c.want, Jf: uint8(skip),
			})
		}
		p = append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(r.errno)})
	}
	return append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}

// noFastPath are the rules of a sandbox without the calls that make UDP fast.
func noFastPath(e unix.Errno) []rule {
	option := func(call uintptr, name uint32) rule {
		return rule{call, map[int]uint32{1: unix.IPPROTO_UDP, 2: name}, e}
	}
	return []rule{
		{unix.SYS_RECVMMSG, nil, e},
		{unix.SYS_SENDMMSG, nil, e},
		option(unix.SYS_SETSOCKOPT, unix.UDP_SEGMENT),
		option(unix.SYS_GETSOCKOPT, unix.UDP_SEGMENT),
		option(unix.SYS_SETSOCKOPT, unix.UDP_GRO),
	}
}

// TestUDPInSandbox: where seccomp refuses the batch calls and the offloads,
// bursts arrive all the same in both directions, and each refusal is reported
// once (PATH-56).
func TestUDPInSandbox(t *testing.T) {
	for name, e := range map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS} {
		t.Run(name, func(t *testing.T) {
			if sandboxed(t, noFastPath(e)) {
				checkWithoutFastPath(t, e)
			}
		})
	}
}

func checkWithoutFastPath(t *testing.T, e unix.Errno) {
	a, b, toB := pair(t, "udp4")
	toA := netip.AddrPortFrom(toB.Addr(), a.LocalAddr().Port())
	var reports [2][]string
	for i, c := range []UDPConn{a, b} {
		c.(FallbackReporter).OnFallback(func(refused string) { reports[i] = append(reports[i], refused) })
		if err := c.(Offloader).SetOffload(true, true); err != nil {
			t.Errorf("SetOffload: %v", err)
		}
	}
	bursts := []packet.Burst{burst(0, 1280, 40, 33), burst(8, 100, 1, 100), burst(0, 1472, 60, 1000)}
	for range 3 {
		sendChecked(t, a, b, toB, bursts...)
		sendChecked(t, b, a, toA, bursts...)
	}
	for i, got := range reports {
		for _, f := range []fallback{noBatches, noSegmentation, noCoalescing} {
			n := 0
			for _, text := range got {
				if strings.HasPrefix(text, f.String()) && strings.Contains(text, e.Error()) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("socket %d reports %q %d times, want once: %q", i, f, n, got)
			}
		}
	}
}

// TestUDPReportsNoFallback: a host with every fast path has nothing to report.
func TestUDPReportsNoFallback(t *testing.T) {
	a, b, to := pair(t, "udp4")
	var got []string
	a.(FallbackReporter).OnFallback(func(refused string) { got = append(got, refused) })
	sendChecked(t, a, b, to, burst(0, 1280, 40, 33))
	if len(got) > 0 {
		t.Errorf("fallbacks %q", got)
	}
}

// TestOtherRefusals: what a sandbox or a kernel without a family refuses is
// said in words, and as errors.ErrUnsupported where the node goes without.
func TestOtherRefusals(t *testing.T) {
	family := func(domain uint32, e unix.Errno) rule { return rule{unix.SYS_SOCKET, map[int]uint32{0: domain}, e} }
	if !sandboxed(t, []rule{
		family(unix.AF_INET6, unix.EAFNOSUPPORT),
		family(unix.AF_NETLINK, unix.EACCES),
		{unix.SYS_SOCKET, map[int]uint32{0: unix.AF_INET, 2: unix.IPPROTO_ICMP}, unix.EPERM},
	}) {
		return
	}
	if _, err := (OS{}).ListenUDP(t.Context(), "udp6", 0); err == nil || !strings.Contains(err.Error(), "this host has no IPv6") {
		t.Errorf("listen without IPv6: %v", err)
	}
	c, err := OS{}.ListenUDP(t.Context(), "udp4", 0)
	if err != nil {
		t.Fatalf("listen on IPv4: %v", err)
	}
	c.Close()
	if err := (OS{}).Watch(t.Context(), func() {}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("watch: %v, want errors.ErrUnsupported", err)
	}
	for _, to := range loopbacks(t) {
		if _, err := (OS{}).Echo(t.Context(), to, nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("echo to %v: %v, want errors.ErrUnsupported", to, err)
		}
	}
	if !slices.Equal(families(t), []string{"udp4"}) {
		t.Error("the sandbox lets IPv6 through")
	}
}
