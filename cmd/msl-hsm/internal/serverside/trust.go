package serverside

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// revocationPause is how often the sender of a message under way is checked.
const revocationPause = 2 * time.Second

// openCRLs opens the file of a setting. Lists older than those in use are refused.
func (s *Service) openCRLs(setting, path string, issuers []*x509.Certificate, log *slog.Logger) (*keys.CRLFile, error) {
	f, err := keys.OpenCRLs(setting, path, issuers, s.crls[setting], log)
	if err == nil {
		s.crls[setting] = f
		s.revoking = append(s.revoking, revocationFile{setting, path, f})
	}
	return f, err
}

// whileTrusted ends a connection when the sender of the message under way is revoked,
// since a channel may stay open for days, and when that sender goes away. Each new message
// is checked anyway.
func (s *Service) whileTrusted(c *mslhttp.StreamConn, handle msl.Handler) msl.Handler {
	return c.Attended(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go s.watchTrust(ctx, c, m.Identity, m.User)
		return handle(ctx, w, m)
	})
}

func (s *Service) watchTrust(ctx context.Context, c *mslhttp.StreamConn, identity, user string) {
	tick := time.NewTicker(revocationPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := s.State.Revoked(ctx, identity, user)
		if errors.Is(err, msl.ErrMasterTokenIdentityRevoked) || errors.Is(err, msl.ErrUserIDTokenRevoked) {
			c.End(err)
			return
		}
	}
}
