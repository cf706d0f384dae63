// Package machine reads from /proc what processes and the whole machine have used.
package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor times in /proc (proc(5): USER_HZ is 100 on
// every architecture that Go has).
const tick = 10 * time.Millisecond

// CPU returns the user and system time of a process.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // a name may hold spaces
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q: too short", pid, b)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %q: no times", pid, b)
	}
	return time.Duration(user+system) * tick, nil
}

// Resident returns the resident memory of a process in bytes.
func Resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// machineCPU returns the processor time that the whole machine has spent, and
// the time that it could have.
func machineCPU() (busy, all time.Duration, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat: %q: too short", line)
	}
	for i, s := range f[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %q: %w", line, err)
		}
		all += time.Duration(n) * tick
		if i != 3 && i != 4 {
			busy += time.Duration(n) * tick
		}
	}
	return busy, all, nil
}

// A Load is the processor time spent so far, by us and by the machine.
type Load struct{ busy, all, own time.Duration }

// LoadOf sums up this process and the given ones.
func LoadOf(pids []int) (l Load, err error) {
	if l.busy, l.all, err = machineCPU(); err != nil {
		return l, err
	}
	for _, pid := range append([]int{os.Getpid()}, pids...) {
		own, err := CPU(pid)
		if err != nil {
			return l, err
		}
		l.own += own
	}
	return l, nil
}

// Others returns which share of the machine's processor time others have used
// since an earlier load of the same processes.
func (l Load) Others(since Load) float64 {
	all := l.all - since.all
	if all == 0 {
		return 0
	}
	return max(0, float64((l.busy-since.busy)-(l.own-since.own))/float64(all))
}

// RaiseFiles lets this process and its children open n files.
func RaiseFiles(n uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if l.Cur >= n {
		return nil
	}
	l.Cur, l.Max = n, max(n, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: raise to %d: %w: try fewer -clients", n, err)
	}
	return nil
}
