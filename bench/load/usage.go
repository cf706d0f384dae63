package load

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Usage is what the agent's process has used.
type Usage struct {
	CPU        float64 // seconds of user and system time
	Resident   int64   // bytes; 0 where not known
	Peak       int64   // most there ever was
	Goroutines int
}

func (a *agent) usage(context.Context, Nothing) (u Usage, err error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return u, err
	}
	u.CPU = seconds(r.Utime) + seconds(r.Stime)
	u.Resident, u.Peak = resident("VmRSS:"), resident("VmHWM:")
	u.Goroutines = runtime.NumGoroutine()
	return u, nil
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// resident returns a field of /proc/self/status in bytes, 0 where there is none.
func resident(field string) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
