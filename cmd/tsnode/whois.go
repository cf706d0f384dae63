package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/localapi"
)

func newWhoIs() *cobra.Command {
	var o socketFlags
	cmd := &cobra.Command{
		Use:   "whois [flags] ADDRESS",
		Short: "Tell who has a tailnet address",
		Long: `Tell which node has an IP address, with or without a port, or a key written as
nodekey:…; who owns it; and what the policy grants it towards the running node.

` + asksRunning,
		Example: `  tsnode whois 100.64.0.7
  tsnode whois 100.64.0.7:51234 --json`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			who, err := c.WhoIs(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), who)
			}
			return printWhoIs(cmd.OutOrStdout(), who)
		},
	}
	o.add(cmd, true)
	return cmd
}

func printWhoIs(w io.Writer, who *localapi.WhoIs) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name string, v any) { fmt.Fprintf(t, "%s:\t%v\n", name, v) }
	line("node", strings.TrimSuffix(who.Node.Name, "."))
	line("ID", who.Node.StableID)
	for _, a := range who.Node.Addresses {
		line("address", a.Addr())
	}
	if len(who.Node.Tags) > 0 {
		line("tags", strings.Join(who.Node.Tags, ", "))
	} else if who.UserProfile != nil {
		line("user", who.UserProfile.LoginName)
	}
	for _, name := range sortedCaps(who.CapMap) {
		line("may", name)
	}
	return t.Flush()
}

func sortedCaps(m map[string][]json.RawMessage) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
