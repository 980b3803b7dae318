package clientside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A Client is an MSL client with everything that it holds open.
type Client struct {
	MSL     *msl.Client
	own     *entityauth.KeySet // pre-shared keys, or nil
	reveals keystore.Revealer  // revealing half of their wrapping key, for ladders, or nil
	peer    *entityauth.PSK    // pre-shared keys of the server, or nil
	earlier *earlierSession    // or nil
	state   *bolt.Client       // or nil
	device  *keys.Device       // whose TPM holds the keys, or nil
	store   keys.Importing
	random  io.ReadCloser // combined with the device's, or nil
	web     *http.Client

	lasting  *lasting    // the connection, if the URL is for persistent ones
	server   *msl.Server // this side as a server to a peer, or nil
	peerConn *msl.Conn   // on peerRaw
	peerRaw  *noticed
}

// An earlierSession holds the tokens of another state file of the same entity: to hide
// the entity, or to authenticate a user.
type earlierSession struct {
	msl   *msl.Client
	state *bolt.Client
}

// A hiddenEntity holds the keys that hide it.
type hiddenEntity struct{ entityauth.MTProtectedEntity }

// userTokens authenticates a user by the tokens of the earlier session.
func (e *earlierSession) userTokens(ctx context.Context, user string) (*msl.UserAuthData, error) {
	held, err := e.msl.HeldTokens(ctx, user)
	if err != nil {
		return nil, err
	}
	defer held.Keys.Release()
	if held.MasterToken == nil || held.UserIDToken == nil {
		return nil, fmt.Errorf("the earlier state has no user ID token of %s", exit.Printable(user))
	}
	return userauth.UserIDTokenData(held.MasterToken.Bytes(), held.UserIDToken.Bytes()), nil
}

// Pushed waits for server messages on the connection of the last answer, and passes the
// data of each to take, until that returns false or an error, or ctx ends.
func (k *Client) Pushed(ctx context.Context, user string, take func(io.Reader) (more bool, err error)) error {
	receive := k.pushedByPeer
	if k.server == nil {
		stream, err := k.lasting.stream.Unasked(ctx)
		if err != nil {
			return err
		}
		inbox := k.MSL.NewInbox(stream)
		inbox.User = user
		receive = func(ctx context.Context, take func(io.Reader) (bool, error)) (bool, error) {
			r, err := inbox.Receive(ctx)
			if err != nil {
				return false, err
			}
			more, err := take(r.Body)
			if closing := r.Body.Close(); err == nil {
				err = closing
			}
			return more, err
		}
	}
	for more := true; more; {
		var err error
		if more, err = receive(ctx, take); errors.Is(err, io.EOF) {
			return exit.WithCode(errors.New("the server ended the connection: wait for messages again once it runs, and check that the URL is that of server.push, or of server.peer with push"), exit.NoAnswer)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// pushedByPeer passes one message from the peer to take.
func (k *Client) pushedByPeer(ctx context.Context, take func(io.Reader) (bool, error)) (more bool, err error) {
	more = true
	var failed error
	err = k.peerConn.Serve(ctx, func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
		if !m.Authenticated {
			return msl.ErrRejectEntity
		}
		more, failed = take(m.Body)
		return msl.ErrNoReply
	})
	return more, errors.Join(failed, err)
}

// Close closes the keys before the store that holds them.
func (k *Client) Close() error {
	var errs []error
	if k.web != nil {
		k.web.CloseIdleConnections() // with close_notify, so that nothing looks truncated
	}
	if k.lasting != nil {
		_ = k.lasting.Close() // everything was sent, or the error was already reported
	}
	if k.server != nil {
		errs = append(errs, k.server.Close())
	}
	if k.MSL != nil {
		errs = append(errs, k.MSL.Close(), closeExchanges(k.MSL.KeyExchanges))
		if hidden, ok := k.MSL.Local.(*hiddenEntity); ok {
			hidden.Keys.Release()
		}
	}
	if k.earlier != nil {
		errs = append(errs, k.earlier.msl.Close(), k.earlier.state.Close())
	}
	if k.peer != nil {
		errs = append(errs, k.peer.Close())
	}
	if k.own != nil {
		k.own.Release()
	}
	if k.reveals != nil {
		errs = append(errs, k.reveals.Close())
	}
	if k.state != nil {
		errs = append(errs, k.state.Close())
	}
	if k.random != nil {
		errs = append(errs, k.random.Close())
	}
	switch {
	case k.device != nil:
		errs = append(errs, k.device.Close())
	case k.store != nil:
		errs = append(errs, k.store.Close())
	}
	return errors.Join(errs...)
}
