package mslhttp

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/outage"
)

// A place is a target, how requests get there, and what is known about it.
type place struct {
	Target
	transport http.RoundTripper
	*condition
}

// A condition is what is known about a target. Upstreams that replace each other share it.
type condition struct {
	busy atomic.Int32 // requests under way

	mu    sync.Mutex
	spare time.Time // until then it is tried only if all others fail
	sick  bool      // the last health check failed
	tried time.Time // when a request or a check had a result
	why   error     // of that result, or nil

	reach, health outage.Outage // as logged
}

// fit reports whether the place may be tried.
func (p *place) fit(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.sick && !now.Before(p.spare)
}

func (p *place) closeIdle() {
	if t, ok := p.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// order returns the places in the order in which a request may try them.
func (u *Upstream) order() []*place {
	if len(u.places) == 1 {
		return u.places
	}
	first := int(u.turn.Add(1) % uint32(len(u.places)))
	order := slices.Concat(u.places[first:], u.places[:first])
	now := time.Now()
	rank := make(map[*place]int32, len(order))
	for _, p := range order {
		if rank[p] = p.busy.Load(); !p.fit(now) {
			rank[p] += 1 << 24
		}
	}
	slices.SortStableFunc(order, func(a, b *place) int { return int(rank[a] - rank[b]) })
	return order
}

// failed records that no connection could be made.
func (u *Upstream) failed(p *place, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reach.Failed(err, func() { u.log(slog.LevelWarn, "upstream cannot be reached", p, slog.Any("error", err)) })
	p.tried, p.why = time.Now(), err
	p.spare = p.tried.Add(cmp.Or(u.Rest, defaultRest))
}

// returned records that a request that began then was answered.
func (u *Upstream) returned(p *place, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.reached(p, began) && !p.sick {
		p.tried, p.why = time.Now(), nil
	}
}

// reached makes the place count as one that can be reached, as something shows that began then, and
// reports whether it does. What began before the last failure shows nothing: a service that stops
// answers what it has, and takes no more. The mutex of the place must be held.
func (u *Upstream) reached(p *place, began time.Time) bool {
	if p.spare.IsZero() {
		return true
	}
	if at, err := p.reach.Last(); err != nil && began.Before(at) {
		return false
	}
	p.reach.Worked(began, func() { u.log(slog.LevelInfo, "upstream can be reached again", p) })
	p.spare = time.Time{}
	return true
}

func (u *Upstream) log(level slog.Level, what string, p *place, attrs ...slog.Attr) {
	if u.Log != nil {
		u.Log.LogAttrs(context.Background(), level, what, append([]slog.Attr{slog.String("upstream", p.String())}, attrs...)...)
	}
}

func (u *Upstream) transport(t Target) (*http.Transport, error) {
	client := u.TLS
	if client == nil {
		client = &TLSClient{}
	}
	secure, err := client.dialer()
	if err != nil {
		return nil, err
	}
	d := &placeDialer{Dialer: net.Dialer{Timeout: max(cmp.Or(u.Connect, defaultConnect), 0)}, socket: t.Socket, secure: secure}
	transport := &http.Transport{
		DialContext: d.dial, DialTLSContext: d.dialTLS,
		ResponseHeaderTimeout: max(cmp.Or(u.Timeout, defaultServiceTimeout), 0),
		MaxIdleConnsPerHost:   serviceConnections, IdleConnTimeout: serviceIdle,
		DisableCompression: true, // the length given by the service stays valid
	}
	switch {
	case u.Proxy == nil || t.Socket != "":
	case t.URL.Scheme == "https":
		d.tunnel = u.Proxy
	default:
		transport.Proxy = http.ProxyURL(u.Proxy)
	}
	return transport, nil
}

// A placeDialer makes the connections to a target.
type placeDialer struct {
	net.Dialer
	socket string     // to connect to, or empty
	tunnel *url.URL   // proxy for TLS, or nil
	secure *tlsDialer // performs TLS handshakes
}

func (d *placeDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.socket != "" {
		network, addr = "unix", d.socket
	}
	return d.DialContext(ctx, network, addr)
}

func (d *placeDialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", err)
	}
	raw, err := d.reach(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return d.secure.over(ctx, raw, host)
}

// reach connects to addr, by way of the proxy if there is one.
func (d *placeDialer) reach(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.tunnel == nil {
		return d.dial(ctx, network, addr)
	}
	port := d.tunnel.Port()
	if port == "" {
		port = "80"
	}
	raw, err := d.dial(ctx, network, net.JoinHostPort(d.tunnel.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if err := d.connect(ctx, raw, addr); err != nil {
		raw.Close()
		return nil, fmt.Errorf("proxy %s: %w", d.tunnel.Redacted(), err)
	}
	return raw, nil
}

// connect asks the proxy for a connection to addr (RFC 9110 section 9.3.6). The proxy
// sends nothing after its answer, since the client speaks first in TLS.
func (d *placeDialer) connect(ctx context.Context, raw net.Conn, addr string) error {
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()
	raw.SetDeadline(time.Now().Add(cmp.Or(d.Timeout, defaultHandshake)))
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if user := d.tunnel.User; user != nil {
		password, _ := user.Password()
		basic := &http.Request{Header: http.Header{}}
		basic.SetBasicAuth(user.Username(), password)
		request.Header["Proxy-Authorization"] = basic.Header["Authorization"]
	}
	if err := request.Write(raw); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(raw, maxProxyAnswer)), request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered HTTP %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
	return raw.SetDeadline(time.Time{})
}

const maxProxyAnswer = 16 << 10 // bytes
