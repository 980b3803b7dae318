//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// A cluster answers requests.
type cluster struct {
	history
	config Config
	left   []string         // endpoints of a cluster that does not have the store
	prefix string           // of all keys of the store; ends in "/"
	client *clientv3.Client // nil once closed
}

func (c *cluster) connect(ctx context.Context) (err error) {
	to := c.transport()
	to.Username, to.DialOptions = c.config.User, append(to.DialOptions, c.dialing()...)
	if c.config.Password != nil {
		password, err := c.config.Password(ctx)
		if err != nil {
			return fail(err, "read the password of the etcd user: %v", err)
		}
		to.Password = string(password)
		clear(password)
		if to.Password == "" {
			return fail(nil, "the password of the etcd user %q is empty", c.config.User)
		}
	}
	c.client, err = clientv3.New(to)
	return err
}

// leave forgets the cluster that answered first, and the endpoints that belong to it.
func (c *cluster) leave(ctx context.Context, endpoints []string) error {
	former := c.client
	c.left = endpoints
	c.id.Store(0)
	c.newest.Store(0)
	if err := c.connect(ctx); err != nil {
		c.client = former
		return err
	}
	return former.Close()
}

// transport configures a connection without a user.
func (c *cluster) transport() clientv3.Config {
	to := clientv3.Config{
		Endpoints:            slices.DeleteFunc(slices.Clone(c.config.Endpoints), func(e string) bool { return slices.Contains(c.left, e) }),
		DialTimeout:          c.config.DialTimeout,
		DialKeepAliveTime:    10 * time.Second, // detects a member that no longer answers
		DialKeepAliveTimeout: 5 * time.Second,
		MaxUnaryRetries:      2, // one, after a new login; ask does the rest
		Logger:               zap.NewNop(),
	}
	if strings.HasPrefix(c.config.Endpoints[0], "https:") {
		to.TLS, to.DialOptions = c.config.tls(), c.config.withRoots()
	}
	return to
}

// loginAgain repeats a login that failed with err, if the reason may be gone.
func (c *cluster) loginAgain(ctx context.Context, login *etcdserverpb.AuthenticateRequest, reply any, err error) error {
	if errors.Is(rpctypes.Error(err), rpctypes.ErrInvalidAuthToken) {
		err = c.loginAnew(ctx, login, reply)
	}
	if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthFailed) && c.answered() && c.newPassword(ctx, login) {
		err = c.loginAnew(ctx, login, reply)
	}
	return err
}

// newPassword puts the present password into a login, and reports whether it is another one.
func (c *cluster) newPassword(ctx context.Context, login *etcdserverpb.AuthenticateRequest) bool {
	password, err := c.config.Password(ctx)
	defer clear(password)
	if err != nil || len(password) == 0 || login.Password == string(password) {
		return false
	}
	login.Password = string(password)
	return true
}

// loginAnew logs in over a connection of its own: an etcd that was restarted refuses even a
// login that comes with a token it no longer knows, and the client sends its token with all
// requests.
func (c *cluster) loginAnew(ctx context.Context, request, reply any) error {
	client, err := clientv3.New(c.transport())
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ActiveConnection().Invoke(ctx, etcdserverpb.Auth_Authenticate_FullMethodName, request, reply, grpc.WaitForReady(true))
}

// dialing makes requests fail while there is no connection, with an error that says why;
// the reason is lost if they wait for a connection. ask repeats them.
func (c *cluster) dialing() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) (err error) {
			for range c.config.Endpoints { // the next one that is asked may be of the right cluster
				err = invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
				if login, ok := request.(*etcdserverpb.AuthenticateRequest); ok {
					err = c.loginAgain(ctx, login, reply, err)
				}
				if err != nil || c.recognize(headerOf(reply)) == nil {
					return err
				}
			}
			return c.recognize(headerOf(reply))
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: c.config.DialTimeout,
		}),
	}
}

// ask repeats a request while the cluster is unavailable. Repeating the request must be
// harmless.
func (c *cluster) ask(ctx context.Context, request func(context.Context) error) error {
	whole, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	var told error
	for try := 0; ; try++ {
		err := c.once(whole, request)
		if err == nil || isFinal(err) {
			return err
		}
		if told == nil || advise(told.Error(), c.answered()) == "" && !isLate(err) { // the one that says most
			told = err
		}
		if !pause(whole, try) {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return told
}

// once makes one attempt of limited duration: the next may be at another member.
func (c *cluster) once(ctx context.Context, request func(context.Context) error) error {
	attempt, cancel := context.WithTimeout(ctx, c.config.Timeout/3)
	defer cancel()
	return request(attempt)
}

func (c *cluster) key(table, key string) string { return c.prefix + table + "/" + key }
