// Command echo joins a tailnet and answers each TCP connection and UDP datagram
// on port 7 with what it gets.
//
//	TS_AUTHKEY=… go run ./examples/echo
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/seed94491740/tsnode/node"
)

func main() {
	n := &node.Node{Hostname: "echo", AuthKey: os.Getenv("TS_AUTHKEY"), UserLogf: log.Printf}
	flag.StringVar(&n.ControlURL, "login-server", node.DefaultControlURL, "control server")
	flag.StringVar(&n.Dir, "state-dir", "", "folder for the node's keys; empty: in memory")
	flag.BoolVar(&n.Ephemeral, "ephemeral", false, "let the tailnet forget the node when it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, n); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, n *node.Node) error {
	defer n.Close()
	context.AfterFunc(ctx, func() { n.Close() })
	ln, err := n.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	pc, err := n.ListenPacket("udp", ":7")
	if err != nil {
		return err
	}
	st, err := n.Up(ctx)
	if err != nil {
		return err
	}
	log.Printf("echoing on %s, %v", st.Self.Name, st.TailscaleIPs)
	go echoDatagrams(pc)
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go echoStream(c)
	}
}

func echoStream(c net.Conn) {
	defer c.Close()
	io.Copy(c, c)
}

func echoDatagrams(pc net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		pc.WriteTo(buf[:n], from)
	}
}
