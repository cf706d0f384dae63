package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/seed94491740/tsnode/bench/load"
	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
)

// controlRole is what this program is called to be the control server.
const controlRole = "control"

// tailnet is what a control process answers first.
type tailnet struct{ URL, AuthKey string }

// controlOptions are what a control process is told when it starts, as JSON.
type controlOptions struct {
	Listen  string
	Hold    bool // its streams stand still now and then
	NoRelay bool
}

// runControl is a control server with a relay, until standard input ends.
func runControl(text string) error {
	var o controlOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	c := devnet.Config{Listen: o.Listen}
	if o.Hold {
		c.Network = holder{began: time.Now()}
	}
	if o.NoRelay {
		c.Relays = -1
	}
	n, err := devnet.Start(context.Background(), c)
	if err != nil {
		return err
	}
	defer n.Close()
	return load.Obey(os.Stdin, os.Stdout, func(q load.Request) (any, error) {
		switch q.Do {
		case "tailnet":
			return tailnet{n.URL(), n.AuthKey(devnet.KeyOptions{Reusable: true})}, nil
		case "synthetic":
			var count int
			if err := json.Unmarshal(q.With, &count); err != nil {
				return nil, err
			}
			return load.Nothing{}, n.SetSyntheticPeers(count)
		case "introduce":
			var i introduction
			if err := json.Unmarshal(q.With, &i); err != nil {
				return nil, err
			}
			go i.make(n)
			return load.Nothing{}, nil
		}
		return nil, fmt.Errorf("a control server has no request %q", q.Do)
	})
}

// An introduction tells a node which relays there are.
type introduction struct {
	Name string // of the node
	Map  *netmap.DERPMap
}

// make tells it as soon as the node has joined. The reference's is not up before
// it has a relay.
func (i introduction) make(n *devnet.Net) {
	for n.SendMap(i.Name, &control.MapResponse{DERPMap: i.Map}) != nil {
		time.Sleep(10 * time.Millisecond) // between two looks; the process ends before long
	}
}

// A controlProcess is a control server with a relay in a process of its own.
type controlProcess struct {
	*process
	tailnet tailnet
}

// startControl starts a fresh tailnet.
func (f *field) startControl(ctx context.Context, o controlOptions) (*controlProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.Listen = netip.AddrPortFrom(f.ground.core.ip, 0).String()
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p, err := f.start(ctx, f.ground.core, nil, self, controlRole, string(text))
	if err != nil {
		return nil, err
	}
	c := &controlProcess{process: p}
	if err := c.ask("tailnet", load.Nothing{}, &c.tailnet); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// addSynthetic adds peers that exist on the map only.
func (c *controlProcess) addSynthetic(count int) error {
	return c.ask("synthetic", count, &load.Nothing{})
}
