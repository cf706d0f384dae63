package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/seed94491740/tsnode/bench/internal/link"
	"github.com/seed94491740/tsnode/bench/internal/netns"
	"github.com/seed94491740/tsnode/bench/load"
)

// linkSeed makes chance on the link the same in every run.
const linkSeed = 1

// Descriptors that a link process inherits.
const (
	leftEnd  = 3
	rightEnd = 4
)

// runLink is the link between two TUN devices, until standard input ends.
func runLink() error {
	l, err := link.New(os.NewFile(leftEnd, "left end"), os.NewFile(rightEnd, "right end"), netns.TUNHeader, linkSeed)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	return load.Obey(os.Stdin, os.Stdout, func(q load.Request) (any, error) {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the link has ended: %w", err)
		default:
		}
		switch q.Do {
		case "set":
			var c link.Conditions
			if err := json.Unmarshal(q.With, &c); err != nil {
				return nil, err
			}
			l.Set(c)
			return load.Nothing{}, nil
		case "report":
			return linkReport{l.Counts(), l.Lag()}, nil
		}
		return nil, fmt.Errorf("a link has no request %q", q.Do)
	})
}
