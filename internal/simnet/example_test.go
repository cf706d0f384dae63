package simnet_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/packet"
)

// A server sees a host behind a NAT under the address of its router.
func Example() {
	internet := simnet.New(1)
	defer internet.Close()
	server := internet.AddHost("server", simnet.HostConfig{})
	home := internet.AddRouter("home", simnet.RouterConfig{
		NAT:  simnet.Easy,
		Link: simnet.Conditions{Delay: 5 * time.Millisecond},
	})
	alice := home.AddHost("alice", simnet.HostConfig{})

	ctx := context.Background()
	stun, err := server.ListenUDP(ctx, "udp4", 3478)
	if err != nil {
		fmt.Println(err)
		return
	}
	socket, err := alice.ListenUDP(ctx, "udp4", 41641)
	if err != nil {
		fmt.Println(err)
		return
	}
	hello := []byte("hello")
	to := netip.AddrPortFrom(server.Addr4(), 3478)
	if err := socket.WriteBursts(to, []packet.Burst{{Buf: hello, Size: len(hello), Count: 1}}); err != nil {
		fmt.Println(err)
		return
	}
	ms := []host.Message{{Buf: make([]byte, 64<<10)}}
	if _, err := stun.ReadBatch(ms); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s from %v, which is %v inside\n", ms[0].Buf[:ms[0].N], ms[0].From, alice.Addr4())
	// Output: hello from 198.18.0.3:41641, which is 192.168.1.2 inside
}
