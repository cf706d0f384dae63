package devnet

import (
	"fmt"
	"testing"
	"time"
)

// TestGather: changes that come together are told together.
func TestGather(t *testing.T) {
	n := New(t, Config{Gather: 200 * time.Millisecond})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	const others = 8
	for i := range others {
		newRawNode(t, n, fmt.Sprintf("b%d", i)).join(KeyOptions{})
	}
	frames := 0
	for told := 0; told < others; frames++ {
		told += len(s.next().PeersChanged)
	}
	if frames >= others {
		t.Errorf("%d frames for %d nodes", frames, others)
	}
}
