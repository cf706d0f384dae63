package main

import "regexp"

// secrets are texts that must not leave the machine, by what they look like: keys
// of this and of other programs of the ecosystem, login URLs, which let whoever has
// one join this node to a tailnet of theirs, passwords in URLs, and tokens.
var secrets = regexp.MustCompile(`(?i)` +
	`tskey-[a-z0-9_?=&-]+` +
	`|\b(privkey|nodekey-priv|hskey-[a-z]+)[:-][0-9a-z_-]+` +
	`|\b(auth-?key|password|passwd|secret|token)(["']?\s*[:=]\s*["']?)[^\s"',}]+` +
	`|https?://[^/\s"]+/(a|register|login)/[^\s"]+` +
	`|://[^/@\s"]+:[^/@\s"]+@` +
	`|\bbearer\s+[a-z0-9._~+/=-]+`)

// redact returns text without what looks like a secret.
func redact(text string) string { return secrets.ReplaceAllString(text, "[redacted]") }
