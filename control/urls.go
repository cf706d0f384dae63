package control

import (
	"fmt"
	"net/url"
	"strings"
)

// hostedSuffix is the domain of the hosted control server: URLs that it gives
// lead there (control.md section 15, rule 6).
const hostedSuffix = "tailscale.com"

// checkURL reports why a URL given by the server must not be shown to a person:
// only https is, and http if the control URL is http, too (CTL-43).
func (c *Client) checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("not a URL: %w", err)
	case u.Hostname() == "":
		return fmt.Errorf("no host in %q", u.Redacted())
	case u.Scheme != "https" && (u.Scheme != "http" || c.url.Scheme != "http"):
		return fmt.Errorf("scheme %q is neither https nor that of the control URL", u.Scheme)
	case inDomain(c.url.Hostname(), hostedSuffix) && !inDomain(u.Hostname(), hostedSuffix):
		return fmt.Errorf("host %q is not within %s", u.Hostname(), hostedSuffix)
	}
	return nil
}

func inDomain(host, domain string) bool {
	host = strings.ToLower(host)
	return host == domain || strings.HasSuffix(host, "."+domain)
}
