package node

import (
	"errors"
	"testing"
)

// VPN-51: with a device in the node's own network, and sockets without a mark,
// there is no exit node; there may be one when the device is elsewhere, or is none
// of the operating system's.
func TestDeviceLoop(t *testing.T) {
	const here, elsewhere = "lo", "nosuch0"
	if err := checkLoop("exit", here); !errors.Is(err, ErrDeviceLoop) {
		t.Errorf("with an exit node: %v, want ErrDeviceLoop", err)
	}
	for _, c := range []struct{ exit, device string }{{"", here}, {"exit", elsewhere}, {"exit", ""}} {
		if err := checkLoop(c.exit, c.device); err != nil {
			t.Errorf("exit node %q, device %q: %v", c.exit, c.device, err)
		}
	}
}
