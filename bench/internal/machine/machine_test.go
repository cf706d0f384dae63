package machine

import (
	"os"
	"testing"
	"time"
)

// TestOthers: what the named processes have not used, others have.
func TestOthers(t *testing.T) {
	since := Load{busy: 10 * time.Second, all: 20 * time.Second, own: 5 * time.Second}
	for _, c := range []struct {
		busy, all, own time.Duration
		want           float64
	}{
		{10 * time.Second, 20 * time.Second, 5 * time.Second, 0},   // no time has passed
		{14 * time.Second, 30 * time.Second, 8 * time.Second, 0.1}, // 1 s of 10
		{14 * time.Second, 30 * time.Second, 10 * time.Second, 0},  // ticks are coarse
	} {
		if got := (Load{c.busy, c.all, c.own}).Others(since); got != c.want {
			t.Errorf("others used %v of %v..%v, want %v", got, since, c, c.want)
		}
	}
}

// TestSelf: this process uses memory, and time of the machine's.
func TestSelf(t *testing.T) {
	if n, err := Resident(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("%d bytes resident, error %v", n, err)
	}
	if l, err := LoadOf(nil); err != nil || l.all <= 0 || l.busy > l.all {
		t.Errorf("load %+v, error %v", l, err)
	}
	if _, err := LoadOf([]int{-1}); err == nil {
		t.Error("a process that is not there has a load")
	}
}
