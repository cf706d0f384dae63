package carry

import (
	"testing"
	"time"
)

// The same is told once in a while.
func TestMute(t *testing.T) {
	var m Mute
	told, now := 0, time.Unix(1, 0)
	for range 100 {
		if m.Pass(now) {
			told++
		}
		now = now.Add(complainEvery / 10)
	}
	if told != 10 {
		t.Errorf("told %d times of 100, want 10", told)
	}
}
