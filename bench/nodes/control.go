package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"github.com/seed94491740/tsnode/bench/load"
	"github.com/seed94491740/tsnode/devnet"
)

// controlRole is what this program is called to be the control server.
const controlRole = "control"

// tailnet is what a control process answers first.
type tailnet struct{ URL, AuthKey string }

// runControl is a control server with a relay, until standard input ends.
func runControl(listen string) error {
	n, err := devnet.Start(context.Background(), devnet.Config{Listen: listen})
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
		}
		return nil, fmt.Errorf("a control server has no request %q", q.Do)
	})
}

// A controlProcess is a control server with a relay in a process of its own.
type controlProcess struct {
	*process
	tailnet tailnet
}

// startControl starts a fresh tailnet with peers that exist on the map only.
func (f *field) startControl(ctx context.Context, synthetic int) (*controlProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := f.start(ctx, f.ground.core, nil, self, controlRole, netip.AddrPortFrom(f.ground.core.ip, 0).String())
	if err != nil {
		return nil, err
	}
	c := &controlProcess{process: p}
	if err = c.ask("tailnet", load.Nothing{}, &c.tailnet); err == nil && synthetic > 0 {
		err = c.ask("synthetic", synthetic, &load.Nothing{})
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}
