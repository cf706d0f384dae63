package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/netmap"
)

func newStatus() *cobra.Command {
	var o socketFlags
	var active bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show the running node and its peers",
		Long: `Show the running node, the nodes that it may see, and how it reaches those that it
talks to. The command fails if the node is not on its tailnet.

` + asksRunning,
		Example: `  tsnode status
  tsnode status --active
  tsnode status --json | jq '.Self.TailscaleIPs'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), s)
			}
			if err := printStatus(cmd.OutOrStdout(), s, active); err != nil {
				return err
			}
			return notOn(s)
		},
	}
	o.add(cmd, true)
	cmd.Flags().BoolVar(&active, "active", false, "show only peers that were sent to within 2 minutes")
	return cmd
}

// printStatus prints a line for each node, and then problems.
func printStatus(w io.Writer, s *localapi.Status, active bool) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if len(s.Self.TailscaleIPs) > 0 {
		printNode(t, s, s.Self, "this node")
	}
	for _, p := range sortedPeers(s) {
		if p.Active || !active {
			printNode(t, s, p, describePeer(p))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, problem := range s.Health {
		if _, err := fmt.Fprintln(w, "# problem:", problem); err != nil {
			return err
		}
	}
	return nil
}

func sortedPeers(s *localapi.Status) (peers []*localapi.PeerStatus) {
	for _, p := range s.Peer {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b *localapi.PeerStatus) int {
		if c := strings.Compare(a.DNSName, b.DNSName); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return peers
}

func printNode(w io.Writer, s *localapi.Status, p *localapi.PeerStatus, how string) {
	ip := "-"
	if len(p.TailscaleIPs) > 0 {
		ip = p.TailscaleIPs[0].String()
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", ip, p.BaseName(), ownerOf(s.User, p), p.OS, how)
}

// ownerOf returns who a node belongs to.
func ownerOf(users map[netmap.UserID]netmap.UserProfile, p *localapi.PeerStatus) string {
	if len(p.Tags) > 0 {
		return strings.Join(p.Tags, ",")
	}
	if u, ok := users[p.UserID]; ok && u.LoginName != "" {
		return u.LoginName
	}
	return "-"
}

// describePeer says how a peer is reached, and what it offers.
func describePeer(p *localapi.PeerStatus) string {
	words := []string{"idle"}
	switch {
	case p.Active && p.CurAddr != "":
		words[0] = "direct " + p.CurAddr
	case p.Active && p.PeerRelay != "":
		words[0] = "peer relay " + p.PeerRelay
	case p.Active && p.Relay != "":
		words[0] = "relay " + p.Relay
	case p.Active:
		words[0] = "active"
	}
	if p.ExitNode {
		words = append(words, "exit node in use")
	} else if p.ExitNodeOption {
		words = append(words, "offers to be an exit node")
	}
	if p.Expired {
		words = append(words, "its key has expired")
	}
	if !p.Online {
		words = append(words, "offline")
	}
	if p.TxBytes+p.RxBytes > 0 {
		words = append(words, fmt.Sprintf("tx %d rx %d", p.TxBytes, p.RxBytes))
	}
	return strings.Join(words, ", ")
}
