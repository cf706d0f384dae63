package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// dnsOptions are the flags of tsnode dns query and tsnode dns status.
type dnsOptions struct {
	socketFlags
	timeout time.Duration
}

func newDNS() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Ask the tailnet's DNS, and show how names resolve",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDNSQuery(), newDNSStatus())
	return cmd
}

func newDNSQuery() *cobra.Command {
	var o dnsOptions
	cmd := &cobra.Command{
		Use:   "query [flags] NAME [TYPE]",
		Short: "Ask the node's DNS for a name",
		Long: `Ask the node's DNS for a name, and show the answer and who gave it: the node
itself, or the servers of a route of the tailnet's DNS configuration.

NAME is a full name, or the first label of a node's name. TYPE is A unless given;
with PTR the name may be an IP address. The command fails if the answer is a
failure, such as NXDOMAIN.

` + asksRunning,
		Example: `  # what does the tailnet say about "web"?
  tsnode dns query web

  # who has this address?
  tsnode dns query 100.64.0.7 PTR

  # does split DNS work? for a script
  tsnode dns query wiki.corp.example AAAA --json`,
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			args = append(args, "A")
			if _, err := dns.ParseType(args[1]); err != nil {
				return &usageError{err}
			}
			return o.run(cmd, func(ctx context.Context, c *localapi.Client) error {
				return o.query(ctx, c, cmd.OutOrStdout(), args)
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func newDNSStatus() *cobra.Command {
	var o dnsOptions
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show how the node resolves names",
		Long: `Show how the node resolves names: the tailnet's suffix and search domains, what
the node answers by itself, and which servers it asks for the rest.

` + asksRunning,
		Example: `  tsnode dns status
  tsnode dns status --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd, func(ctx context.Context, c *localapi.Client) error { return o.status(ctx, c, cmd.OutOrStdout()) })
		},
	}
	o.flags(cmd)
	return cmd
}

// flags defines the flags of both.
func (o *dnsOptions) flags(cmd *cobra.Command) {
	o.add(cmd, true)
	cmd.Flags().DurationVar(&o.timeout, "timeout", 15*time.Second, "how long to wait for the answer")
}

// run lets f ask the running node.
func (o *dnsOptions) run(cmd *cobra.Command, f func(context.Context, *localapi.Client) error) error {
	if o.timeout <= 0 {
		return &usageError{fmt.Errorf("--timeout %v: want a duration such as 5s", o.timeout)}
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	return f(ctx, c)
}

// A dnsAnswer is what the node tells of an answer, and --json prints.
type dnsAnswer struct {
	dns.Answer
	TookSeconds float64
}

// query asks and prints; args are a name and a type.
func (o *dnsOptions) query(ctx context.Context, c *localapi.Client, w io.Writer, args []string) error {
	var a dnsAnswer
	began := time.Now()
	err := c.QueryDNS(ctx, args[0], args[1], &a)
	if err != nil {
		return err
	}
	a.Took = time.Since(began)
	if a.TookSeconds = a.Took.Seconds(); o.json {
		err = printJSON(w, a)
	} else {
		err = printAnswer(w, &a.Answer)
	}
	if err == nil && a.Code != "NOERROR" {
		err = fmt.Errorf("%s %s: %s", a.Name, a.Type, a.Code)
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printAnswer prints the records as zone files have them.
func printAnswer(w io.Writer, a *dns.Answer) error {
	by := "this node"
	if !a.Local {
		by = "nobody: no server is responsible for the name"
		if len(a.Resolvers) > 0 {
			by = strings.Join(a.Resolvers, ", ") + " (route " + a.Route + ")"
		}
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range a.Records {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", r.Name, r.TTL, r.Type, r.Data)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s in %v, answered by %s\n", a.Code, a.Took.Round(10*time.Microsecond), by)
	return err
}

// status prints how names resolve.
func (o *dnsOptions) status(ctx context.Context, c *localapi.Client, w io.Writer) error {
	var s node.DNSStatus
	if err := c.Call(ctx, http.MethodGet, "tsnode/"+endpointDNSStatus, nil, &s); err != nil {
		return err
	}
	if o.json {
		return printJSON(w, s)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(t, "%s:\t%s\n", name, value) }
	line("MagicDNS", map[bool]string{true: "on", false: "off"}[s.MagicDNS])
	line("suffix", s.Suffix)
	line("search domains", orNone(s.Search))
	line("answered here", orNone(s.Zones))
	for _, suffix := range sortedRoutes(s.Routes) {
		var servers []string
		for _, u := range s.Routes[suffix] {
			servers = append(servers, u.String())
		}
		line("route "+suffix, orNone(servers))
	}
	for _, p := range s.Problems {
		line("problem", p)
	}
	return t.Flush()
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func sortedRoutes(routes map[string][]dns.Upstream) (suffixes []string) {
	for s := range routes {
		suffixes = append(suffixes, s)
	}
	sort.Strings(suffixes)
	return suffixes
}
