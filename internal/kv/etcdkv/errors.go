//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

func codeOf(err error) codes.Code {
	var own rpctypes.EtcdError
	switch {
	case errors.As(err, &own):
		return own.Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return status.Code(err)
}

// isFinal reports whether a request was refused: it has changed nothing and would be
// refused again. Other errors may mean a lost answer, or a login that expired meanwhile.
func isFinal(err error) bool {
	if errors.Is(err, rpctypes.ErrInvalidAuthToken) {
		return false
	}
	switch codeOf(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.ResourceExhausted,
		codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.Unauthenticated:
		return true
	}
	var own failure
	return errors.As(err, &own)
}

// isLate reports whether an answer did not come in time. A member that waits for others
// passes their error on as a text.
func isLate(err error) bool {
	return codeOf(err) == codes.DeadlineExceeded || strings.Contains(err.Error(), context.DeadlineExceeded.Error())
}

// explain says what to do about an error of etcd, on one line.
func (c *cluster) explain(err error) error {
	var own failure
	switch {
	case err == nil, err == errAgain, errors.As(err, &own):
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("etcdkv: %w", err)
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("etcdkv: etcd does not accept the user %q or its password: check both", c.config.User)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return errors.New("etcdkv: etcd asks for a user and a password: configure them")
	case errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return errors.New("etcdkv: etcd has no authentication: leave out the user, or run etcdctl auth enable")
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("etcdkv: the etcd user may not use all keys that begin with %q: grant its role readwrite on that prefix", c.prefix)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return errors.New("etcdkv: " + fullAdvice)
	case errors.Is(err, rpctypes.ErrCorrupt):
		return fail(kv.ErrDamaged, corruptAdvice)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		return errors.New("etcdkv: a change is too large for this etcd: set its --max-request-bytes and --max-txn-ops to the default or more")
	}
	return c.explainConnection(err)
}

// explainConnection adds advice to an error of a connection.
func (c *cluster) explainConnection(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	at := strings.Join(c.config.Endpoints, ", ")
	switch advice := advise(text, c.answered()); {
	case advice != "":
		return fmt.Errorf("etcdkv: etcd at %s: %s (%s)", at, advice, text)
	case isLate(err):
		return fmt.Errorf("etcdkv: etcd at %s does not answer: check that most of its members run: %w", at, err)
	}
	return fmt.Errorf("etcdkv: etcd at %s: %s", at, text)
}

const (
	fullAdvice    = "the database of etcd is full: compact and defragment it, or raise --quota-backend-bytes, then run etcdctl alarm disarm"
	corruptAdvice = "etcd says that the cluster is corrupt: replace the member that differs"
)

// A symptom is a part of a gRPC error text; gRPC has no types for the causes.
type symptom struct{ part, advice string }

// certain are symptoms with one cause.
func certain() []symptom {
	return []symptom{
		{"alarm:NOSPACE", fullAdvice},
		{"alarm:CORRUPT", corruptAdvice},
		{otherCluster, "an endpoint belongs to another cluster than the one that answered first: correct the endpoints; if a backup of etcd was restored, make all older tokens invalid, then restart the servers"},
		{"first record does not look like a TLS handshake", "it does not speak TLS: use http, or give etcd a certificate"},
		{"signed by unknown authority", "its certificate is not of a known CA: configure the CA of etcd"},
		{"certificate is valid for", "its certificate has another name: use the name in it"},
		{"not valid for any names", "its certificate has another name: use the name in it"},
		{"doesn't contain any", "its certificate has another name: use the name in it"},
		{"certificate has expired", "its certificate has expired, or the clock of this machine is wrong"},
		{"certificate required", "it asks for a client certificate: configure one"},
		{"bad certificate", "it refuses the client certificate, or asks for one: configure one of the CA that etcd trusts"},
		{"remote error: tls: unknown certificate", "it refuses the client certificate: configure one of the CA that etcd trusts"},
		{"etcdserver: no leader", "it cannot reach most of the members: check that they run, and the network in between"},
		{"etcdserver: request timed out", "it cannot reach most of the members: check that they run, and the network in between"},
		{"connection refused", "nothing listens there: check that etcd is running"},
		{"no such host", "there is no such host: check the name"},
	}
}

// broken are symptoms of a connection that ended. If etcd has never answered, the cause
// is how the connection was opened.
func broken() []symptom {
	return []symptom{
		{"authentication handshake failed: EOF", "it does not speak TLS: use http, or give etcd a certificate"},
		{"use of closed network connection", "it does not answer: check that most of its members run; if it expects TLS or a client certificate, use https, and configure one"}, // closed here: it was late, or had ended the connection
		{"error reading server preface", "it may expect TLS or a client certificate: use https, and configure one"},
		{"broken pipe", "it ends the connection: if it asks for a client certificate, configure one"},
		{"authentication handshake failed: read", "it ends the connection: if it does not speak TLS, use http; if it asks for a client certificate, configure one"},
		{"connection reset", "it ends the connection: if it asks for a client certificate, configure one"},
	}
}

// advise finds advice for the text of an error, or returns "".
func advise(text string, answered bool) string {
	shows := func(s symptom) bool { return strings.Contains(text, s.part) }
	all := certain()
	if !answered {
		all = append(broken(), all...)
	}
	if i := slices.IndexFunc(all, shows); i >= 0 {
		return all[i].advice
	}
	if slices.ContainsFunc(broken(), shows) {
		return "the connection ended, and it answered before: check that it is running, and the network in between"
	}
	return ""
}

// answered reports whether the cluster ever answered. gRPC does not say to which member a
// connection was, and all are contacted in the same way.
func (c *cluster) answered() bool { return c.newest.Load() > 0 }
