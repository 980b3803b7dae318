//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Rooted credentials read the roots for each connection.
type rooted struct {
	credentials.TransportCredentials
	config Config
}

// ClientHandshake implements [credentials.TransportCredentials].
func (r rooted) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	roots, err := r.config.Roots()
	if err != nil {
		return nil, nil, err
	}
	c := r.config.tls()
	c.RootCAs = roots
	return credentials.NewTLS(c).ClientHandshake(ctx, authority, conn)
}

// Clone implements [credentials.TransportCredentials].
func (r rooted) Clone() credentials.TransportCredentials {
	return rooted{r.TransportCredentials.Clone(), r.config}
}

// tls returns a copy of the settings of TLS.
func (c Config) tls() *tls.Config {
	if c.TLS == nil {
		return &tls.Config{}
	}
	return c.TLS.Clone()
}

// withRoots makes connections read the roots, if they may be replaced.
func (c Config) withRoots() []grpc.DialOption {
	if c.Roots == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(rooted{credentials.NewTLS(c.tls()), c})}
}
