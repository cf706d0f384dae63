package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/proxy"
)

// forwardOptions are the flags of tsnode forward and of the commands below it.
type forwardOptions struct {
	socketFlags
	local, remote, socks, http []string
}

func newForward() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forward",
		Short: "Add, remove and list forwards of the running node",
		Long: `Add, remove and list forwards and proxies of the running node.

What is added stays until it is removed or the node's process ends: SIGHUP, which
has the configuration file read again, leaves it alone.`,
		Example: `  tsnode forward add -L 8080:web:80
  tsnode forward list
  tsnode forward remove -L 8080:web:80`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newForwardAdd(), newForwardRemove(), newForwardList())
	return cmd
}

func newForwardAdd() *cobra.Command {
	var o forwardOptions
	cmd := &cobra.Command{
		Use:   "add {-L|-R|-D|--http-proxy} FORWARD…",
		Short: "Add forwards and proxies to the running node",
		Long: `Add forwards and proxies to the running node, as 'tsnode run' has them. All listen
when the command is done, or none is added. What the node has already is left as it
is. Proxies ask for the passwords of --proxy-auth that the node was started with.

` + asksRunning,
		Example: `  # reach port 80 of the node "web" as http://127.0.0.1:8080
  tsnode forward add -L 8080:web:80

  # a service and a proxy for the next hour
  tsnode forward add -R 80:localhost:3000 -D 1080 && sleep 3600 &&
    tsnode forward remove -R 80:localhost:3000 -D 1080`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.add(cmd) },
	}
	o.flags(cmd, true)
	return cmd
}

func newForwardRemove() *cobra.Command {
	var o forwardOptions
	cmd := &cobra.Command{
		Use:   "remove {-L|-R|-D|--http-proxy} FORWARD…",
		Short: "Remove forwards and proxies of the running node",
		Long: `Remove forwards and proxies of the running node, with all their connections. They
are named as they were added, or as 'tsnode forward list' shows them; options may be
left out. If there is none such, nothing is removed. One that the configuration file
has comes back when that is read again.

` + asksRunning,
		Example: `  tsnode forward remove -L 8080:web:80
  tsnode forward remove -D 1080 -R 80:localhost:3000`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.remove(cmd) },
	}
	o.flags(cmd, false)
	return cmd
}

func newForwardList() *cobra.Command {
	var o forwardOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the forwards and proxies of the running node",
		Long: `Show the forwards and proxies of the running node, and how each fares: where it
listens, connections or flows now and in all, those that failed and that there was
no room for, bytes from and to clients, and the last error.

` + asksRunning,
		Example: `  tsnode forward list
  tsnode forward list --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.list(cmd) },
	}
	o.socketFlags.add(cmd, true)
	return cmd
}

// flags defines the flags that name forwards.
func (o *forwardOptions) flags(cmd *cobra.Command, json bool) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&o.local, "local", "L", nil, "forward [bind:]port:host:hostport into the tailnet")
	f.StringArrayVarP(&o.remote, "remote", "R", nil, "forward [bind:]port:host:hostport from the tailnet")
	f.StringArrayVarP(&o.socks, "socks5", "D", nil, "SOCKS5 proxy into the tailnet on [bind:]port or unix:PATH")
	f.StringArrayVar(&o.http, "http-proxy", nil, "HTTP proxy into the tailnet on [bind:]port or unix:PATH")
	o.socketFlags.add(cmd, json)
}

// words are the forwards that the flags name, as they are on the way to the node.
func (o *forwardOptions) words() ([]string, error) {
	words := forwardWords(o.local, o.remote, o.socks, o.http)
	if len(words) == 0 {
		return nil, &usageError{errors.New("name a forward, as in -L 8080:web:80")}
	}
	if _, err := parseForwards(words); err != nil {
		return nil, &usageError{err}
	}
	return words, nil
}

// ask sends the forwards that the flags name.
func (o *forwardOptions) ask(ctx context.Context, method string, answer any) error {
	words, err := o.words()
	if err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	return c.Call(ctx, method, "tsnode/"+endpointForwards, words, answer)
}

func (o *forwardOptions) add(cmd *cobra.Command) error {
	var added []proxy.Status
	if err := o.ask(cmd.Context(), http.MethodPost, &added); err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), added)
	}
	for _, s := range added {
		fmt.Fprintln(cmd.OutOrStdout(), forwardText(s))
	}
	return nil
}

func (o *forwardOptions) remove(cmd *cobra.Command) error {
	return o.ask(cmd.Context(), http.MethodDelete, nil)
}

func (o *forwardOptions) list(cmd *cobra.Command) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	all, err := forwardsAt(cmd.Context(), c)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), all)
	}
	return printForwards(cmd.OutOrStdout(), all)
}

// forwardsAt returns how the forwards of a running node fare.
func forwardsAt(ctx context.Context, c *localapi.Client) (all []proxy.Status, err error) {
	return all, c.Call(ctx, http.MethodGet, "tsnode/"+endpointForwards, nil, &all)
}

func printForwards(w io.Writer, all []proxy.Status) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "FORWARD\tLISTENS ON\tOPEN\tTOTAL\tFAILED\tREFUSED\tIN\tOUT\tLAST ERROR")
	for _, s := range all {
		listen := s.Listen
		if listen == "" {
			listen = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", s.Forward, listen, s.Open, s.Total, s.Failed, s.Refused, s.BytesIn, s.BytesOut, s.LastError)
	}
	return t.Flush()
}
