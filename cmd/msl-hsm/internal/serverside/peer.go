package serverside

import (
	"context"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// servePeer answers peers. Each connection has its own client, which holds the tokens of
// one peer.
func servePeer(c *config.Config, s *Service, pushes *Pushes) (func(*generation, context.Context, *mslhttp.StreamConn) error, error) {
	if c.Server.Peer.Path == "" && c.Server.Peer.Listen == "" {
		if c.Server.Peer.Push {
			return nil, exit.Usagef("server.peer.push is on, but peers cannot connect: set server.peer.path or server.peer.listen, or use --peer")
		}
		return nil, nil
	}
	if err := c.Server.CheckPeer(s.MSL.Custody); err != nil {
		return nil, err
	}
	offers, err := peerOffers(c, s)
	if err != nil {
		return nil, err
	}
	return func(g *generation, ctx context.Context, conn *mslhttp.StreamConn) error {
		client := &msl.Client{
			Local: g.MSL.Local, Peers: g.MSL.Peers, KeyExchanges: offers, Custody: g.MSL.Custody,
			ServiceTokens: g.MSL.ServiceTokens, Capabilities: g.MSL.Capabilities, Limits: g.MSL.Limits, Rand: g.random,
		}
		defer client.Close()
		if c.Server.Peer.Push {
			return g.servePushedPeer(ctx, &seat{StreamConn: conn, pushes: pushes}, client)
		}
		peer := msl.NewConn(conn, g.MSL, client)
		peer.Source = conn.Source
		trusted := g.whileTrusted(conn, g.handle)
		for {
			if err := peer.Serve(ctx, trusted); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}, nil
}

// peerPatience is how long a peer may take for the handshake that a message to it needs.
const peerPatience = time.Minute

// servePushedPeer answers a peer's messages, and after each sends what was posted for it.
func (g *generation) servePushedPeer(ctx context.Context, own *seat, client *msl.Client) error {
	defer own.leave()
	peer := msl.NewConn(own, g.MSL, client)
	peer.Source = own.Source
	for {
		var waiting *msl.Message
		err := peer.Serve(ctx, g.whileTrusted(own.StreamConn, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			if m.Authenticated {
				own.take(m)
				w.Afterward(func() error { waiting = m; return nil })
			}
			return g.handle(ctx, w, m)
		}))
		if err == nil && waiting != nil {
			err = g.push(ctx, own, waiting, func(ctx context.Context, data []byte) error {
				ctx, cancel := context.WithTimeout(ctx, peerPatience)
				defer cancel()
				return peer.Send(ctx, &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody(data)})
			})
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// peerOffers returns the key exchanges that this server offers its peers.
func peerOffers(c *config.Config, s *Service) (all []msl.Offerer, err error) {
	own, preShared := s.MSL.Local.(*entityauth.PSKEntity)
	names := []string(c.Server.Peer.KeyExchanges)
	if names == nil {
		names = []string{"ASYMMETRIC_WRAPPED"}
		if preShared {
			names = []string{"SYMMETRIC_WRAPPED"}
		}
	}
	for _, name := range names {
		var x msl.Offerer
		switch {
		case name == "SYMMETRIC_WRAPPED" && preShared:
			x = &keyx.SymmetricOfferer{Keys: own.Keys}
		case name == "ASYMMETRIC_WRAPPED":
			x = &keyx.AsymmetricWrapped{Store: s.Store, Rand: s.random}
		default:
			if x, err = keys.TwoSidedExchange(name, s.Store, c.Server.DHGroups, s.random); err != nil {
				return nil, err
			}
		}
		all = append(all, x)
	}
	return all, nil
}
