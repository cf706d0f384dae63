package node

import (
	"context"
	"net"
	"net/http"
)

// identityKey is the context's key of a request's *WhoIsResponse, connKey that of
// its connection.
type (
	identityKey struct{}
	connKey     struct{}
)

// Identify returns a handler that knows who asks: next finds that with Identity.
// Who belongs to no node of the tailnet is refused with status 403.
//
// Set the server's ConnContext to ConnContext too: then it is who opened the
// connection, whatever has become of the address since (SVC-120).
func (n *Node) Identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := n.whoAsks(r)
		if err != nil {
			http.Error(w, "this address belongs to no node of the tailnet", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
	})
}

func (n *Node) whoAsks(r *http.Request) (*WhoIsResponse, error) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		return n.WhoIsConn(c)
	}
	return n.WhoIs(r.Context(), r.RemoteAddr)
}

// ConnContext lets Identify know the connection of a request; see
// http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// Identity returns who sent a request that came through Identify, by its
// context; nil for others.
func Identity(ctx context.Context) *WhoIsResponse {
	who, _ := ctx.Value(identityKey{}).(*WhoIsResponse)
	return who
}
