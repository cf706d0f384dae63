package node

import "context"

// A LocalClient asks a node about itself and about who connects to it: the
// idioms tsnet programs use.
type LocalClient struct{ node *Node }

// LocalClient returns a client of the node, which it starts if necessary.
func (n *Node) LocalClient() (*LocalClient, error) {
	if err := n.Start(); err != nil {
		return nil, err
	}
	return &LocalClient{n}, nil
}

// Status returns a snapshot of the node.
func (c *LocalClient) Status(context.Context) (*Status, error) { return c.node.Status(), nil }

// WhoIs tells who is behind an address, as Node.WhoIs does.
func (c *LocalClient) WhoIs(ctx context.Context, addr string) (*WhoIsResponse, error) {
	return c.node.WhoIs(ctx, addr)
}
