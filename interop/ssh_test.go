package interop

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/seed94491740/tsnode/devnet"
)

// ssh reaches a node of the tailnet through 'tsnode nc' as its ProxyCommand.
func TestSSHThroughNetcat(t *testing.T) {
	program, err := ourProgram()
	if err != nil {
		t.Fatal(err)
	}
	tailnet := startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	web, me := ourNode(t, tailnet.URL(), "web", k), ourNode(t, tailnet.URL(), "me", k)
	dir := t.TempDir()
	ln, err := web.Listen("tcp", ":22")
	if err != nil {
		t.Fatal(err)
	}
	go serveSSH(ln, newSSHKey(t, ""), newSSHKey(t, filepath.Join(dir, "id")).PublicKey())
	ctx, cancel := context.WithTimeout(context.Background(), cliTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", filepath.Join(dir, "id"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile="+filepath.Join(dir, "hosts"),
		"-o", fmt.Sprintf("ProxyCommand=%s nc --socket %s %%h %%p", program, serveSocket(t, me)), "someone@web", "uname")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh (of the package openssh-client): %v\n%s", err, out)
	}
	if want := "ran uname for someone\n"; len(out) < len(want) || string(out[len(out)-len(want):]) != want {
		t.Errorf("got %q", out)
	}
}

// newSSHKey makes a key, and keeps it in a file for ssh if that has a name.
func newSSHKey(t *testing.T, file string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if file != "" {
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// serveSSH lets who has a key run commands, of which it says only that it did.
func serveSSH(ln net.Listener, host ssh.Signer, user ssh.PublicKey) {
	config := sshConfig(host, user)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go serveSSHConn(c, config)
	}
}

// sshConfig is that of a server that lets in who has a key.
func sshConfig(host ssh.Signer, user ssh.PublicKey) *ssh.ServerConfig {
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if string(k.Marshal()) != string(user.Marshal()) {
			return nil, fmt.Errorf("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	return config
}

func serveSSHConn(c net.Conn, config *ssh.ServerConfig) {
	defer c.Close()
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for wanted := range channels {
		channel, asked, err := wanted.Accept()
		if err != nil {
			return
		}
		for r := range asked {
			if r.Type != "exec" {
				r.Reply(false, nil)
				continue
			}
			var command struct{ Line string }
			ssh.Unmarshal(r.Payload, &command)
			r.Reply(true, nil)
			fmt.Fprintf(channel, "ran %s for %s\n", command.Line, conn.User())
			channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{}))
			channel.Close()
		}
	}
}
