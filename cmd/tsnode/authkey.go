package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecret bounds a secret read from a file or standard input, in bytes.
const maxSecret = 4 << 10

// readAuthKey resolves the value of --auth-key: "file:PATH" reads a file, "-"
// the first line of standard input; anything else is the key itself, which
// other users of the machine can see in the list of processes.
func readAuthKey(value string, stdin io.Reader, warn io.Writer) (string, error) {
	switch {
	case value == "":
		return "", nil
	case value == "-":
		line, err := bufio.NewReader(io.LimitReader(stdin, maxSecret)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("auth key from standard input: %w", err)
		}
		return nonEmpty("auth key", line, "standard input")
	case !strings.HasPrefix(value, filePrefix):
		fmt.Fprintln(warn, "tsnode: warning: an auth key on the command line is visible to other users; use --auth-key file:PATH, --auth-key - or TS_AUTHKEY")
	}
	return readSecret("auth key", value)
}

// filePrefix begins the path of a file that holds a secret.
const filePrefix = "file:"

// readSecret resolves a secret: "file:PATH" reads a file, anything else is the
// secret itself. what names it in errors.
func readSecret(what, value string) (string, error) {
	path, isFile := strings.CutPrefix(value, filePrefix)
	if !isFile {
		return value, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return nonEmpty(what, string(b), path)
}

func nonEmpty(what, text, from string) (string, error) {
	if text = strings.TrimSpace(text); text == "" {
		return "", &usageError{fmt.Errorf("%s: %s holds none", what, from)}
	}
	return text, nil
}
