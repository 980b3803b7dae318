package serverside

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// A Service is a server with everything that it holds open.
type Service struct {
	*base
	psk *entityauth.PSK
	mgk *entityauth.MGK
	MSL *msl.Server

	prefix       string             // of the labels of the keys
	tls          *mslhttp.TLSServer // below MSL, or nil
	upstream     *mslhttp.Upstream  // behind the server, or nil
	certificates []certificateFile  // presented by the server
	stapled      []stapledFile      // sent with them
	heartbeat    heartbeat
	metered      meteredState
	crls         map[string]*keys.CRLFile // in use, by setting; at first, those of the service before this one
	revoking     []revocationFile         // those of crls that this service opened
	least        map[string]uint32        // versions of keys below which sessions were forgotten
}

// A revocationFile is a file of revocation lists that this service uses.
type revocationFile struct {
	setting, path string
	lists         *keys.CRLFile
}

// A base is what a server keeps when its configuration is read again.
type base struct {
	Store       keys.Store
	issuing     *msl.Versions // of the keys of master and user ID tokens
	services    *msl.Versions // of the keys of service tokens
	paired      state.Pair    // the keys of the state, as this process last saw them
	pairing     string        // what to report about the state and the keys, from the start
	random      io.ReadCloser // combined with the device's, or nil
	State       *admin.State
	Devices     *keys.Authority // enrolls devices here, or nil
	endpoint    *fleet.Endpoint // at which devices enroll, or nil
	Connections *mslhttp.Connections
	Metrics     *metrics.Set

	secured   []net.Listener // with TLS
	alerts    tlsalert.Counter
	headers   func(msl.HeaderInfo) // called with headers, or nil
	asRead    string               // the identity, before a certificate determines another one
	access    accessLog
	audit     audit
	issuerUse keyUse
	keysLost  atomic.Bool // since sessions were last forgotten

	past      *statuspage.History // for the operators' page, or nil
	keysSeen  glance[[]keystore.Info]
	stateSeen glance[statuspage.State]
	started   time.Time

	leaving     atomic.Bool
	stateFailed outage.Outage // of stateFailure
	stateLost   outage.Outage // as logged
	stateTrial  glance[struct{}]
	keysFailed  atomic.Pointer[keysFailure]
	stateSince  atomic.Pointer[time.Time] // when etcd came back after it was lost
	stateBehind atomic.Pointer[string]    // whose token is newer than the state
}

// Trace makes f be called with the header of each message.
func (s *Service) Trace(f func(msl.HeaderInfo)) { s.headers, s.MSL.Headers = f, f }

// Close releases every key object, then the sessions and the file.
func (s *Service) Close() error {
	var errs []error
	if s.endpoint != nil {
		errs = append(errs, s.endpoint.Close())
	}
	errs = append(errs, s.audit.Close())
	s.State.StopPruning() // which needs the key of the state
	if s.MSL != nil {
		errs = append(errs, s.retire())
		if objects, sessions := s.Store.Live(); objects+sessions > 0 {
			errs = append(errs, fmt.Errorf("%d key objects and %d sessions were still in use at the end", objects, sessions))
		}
	}
	if s.random != nil {
		errs = append(errs, s.random.Close())
	}
	if s.Store != nil {
		errs = append(errs, s.Store.Close())
	}
	if s.Devices != nil {
		errs = append(errs, s.Devices.Close())
	}
	return errors.Join(append(errs, s.access.Close(), s.State.Close())...)
}

// retire releases the keys of a server that gets no more messages. Messages in flight
// keep theirs.
func (s *Service) retire() error {
	errs := []error{s.MSL.Close(), s.psk.Close()}
	if s.mgk != nil {
		errs = append(errs, s.mgk.Close())
	}
	return errors.Join(errs...)
}
