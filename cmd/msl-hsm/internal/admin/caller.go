package admin

import (
	"context"
	"net"
)

// callerKey is the key of the caller in the context of a request.
type callerKey struct{}

// withCaller stores in a context who is at the other end of a connection.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	if unix, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, callerKey{}, caller(unix))
	}
	return ctx
}

// callerOf returns who sent a request, if the operating system says so.
func callerOf(ctx context.Context) string {
	who, _ := ctx.Value(callerKey{}).(string)
	return who
}
