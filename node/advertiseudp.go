package node

import (
	"context"

	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
)

// udp carries datagrams between a peer and a host until the flow is idle.
func (g gateway) udp(ctx context.Context, in *netstack.UDPConn) {
	defer in.Close()
	from, to := addrPortOf(in.RemoteAddr()), addrPortOf(in.LocalAddr())
	dst, ok := g.permits(packet.UDP, from, to)
	if !ok {
		return
	}
	out, err := g.network.Dial(ctx, "udp", dst.String())
	if err != nil {
		g.log.Debug("datagrams not forwarded", "from", from, "to", to, "err", err)
		return
	}
	defer out.Close()
	defer g.behalf.note(packet.UDP, out.LocalAddr(), from)()
	carry.PipeDatagrams(ctx, in, out, carry.IdleAfter(to.Port()), &g.carried)
}
