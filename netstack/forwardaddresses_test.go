package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// A flow of datagrams with a host behind the stack loses none while the stack's own
// addresses are set, the same or others: the host's is an address of the stack for as
// long as the flow (SVC-57).
func TestForwardedDatagramsWhileAddressesAreSet(t *testing.T) {
	a, b, _ := forwardPair(t, nil)
	c := echoingUDP(t, a, netip.AddrPortFrom(host4, 80))
	own := []netip.Addr{b4, b6}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			addrs := own
			if i%4 < 2 { // each twice
				addrs = append(own, netip.AddrFrom4([4]byte{100, 64, 7, byte(i)}))
			}
			if err := b.SetAddresses(addrs); err != nil {
				stopped <- err
				return
			}
		}
	}()
	defer func() {
		close(stop)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}()
	c.SetDeadline(time.Now().Add(patience))
	const burst = 8
	for first := uint32(0); first < 4000; first += burst {
		for i := range uint32(burst) {
			if _, err := c.Write(binary.BigEndian.AppendUint32(nil, first+i)); err != nil {
				t.Fatal(err)
			}
		}
		for missing := uint32(1<<burst - 1); missing != 0; {
			buf := make([]byte, 10)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("of the datagrams from %d on these are lost: %b: %v", first, missing, err)
			}
			if i := binary.BigEndian.Uint32(buf) - first; n == 4 && i < burst {
				missing &^= 1 << i
			}
		}
	}
}
