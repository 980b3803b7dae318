package config

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Upstream configures the HTTP service behind a server.
type Upstream struct {
	URL         TargetList `yaml:"url" short:"yes" example:"http://127.0.0.1:3000/"`      // http, https, unix:SOCKET or unix:SOCKET:/PATH; a list if it runs at several addresses; default: an echo
	Method      httpMethod `yaml:"method" example:"POST"`                                 // of every request
	ContentType string     `yaml:"content-type" example:"application/octet-stream"`       // of what devices send
	Headers     headerMap  `yaml:"headers" example:"\nAuthorization: file:service.token"` // set in every request; each value is read from a source, like a password

	Body   bodyForm `yaml:"body" example:"auto"`      // auto: a message that fits the buffer is sent with a Content-Length, others are streamed; whole: others get an error; stream: every message of several chunks is streamed, for channels
	Buffer int      `yaml:"buffer" example:"1048576"` // bytes of a message to read ahead to find its length; at most limits.held

	Timeout        time.Duration `yaml:"timeout" example:"30s"`        // until its answer begins; must be less than limits.timeout
	ConnectTimeout time.Duration `yaml:"connect-timeout" example:"5s"` // of a connection
	Spare          time.Duration `yaml:"spare" example:"10s"`          // how long an address that cannot be reached is left out while others can be

	Check struct {
		Path     string        `yaml:"path" example:"/healthz"` // requested with GET; default: no checks
		Interval time.Duration `yaml:"interval" example:"10s"`  // from one check to the next
		Timeout  time.Duration `yaml:"timeout" example:"5s"`    // of a check
	} `yaml:"check"` // of each address; one that answers 400 or above gets no messages while others pass

	TLS   ClientTLS `yaml:"tls"`                                        // for https
	Proxy proxyURL  `yaml:"proxy" example:"http://proxy.internal:3128"` // default: none, whatever HTTP_PROXY says
}

// IsZero reports whether there is no service.
func (u *Upstream) IsZero() bool { return len(u.URL) == 0 }

// String lists the addresses of the service, without passwords.
func (u *Upstream) String() string {
	names := make([]string, len(u.URL))
	for i, target := range u.URL {
		names[i] = target.String()
	}
	return strings.Join(names, ", ")
}

// A TargetList lists the addresses at which a service runs.
type TargetList []mslhttp.Target

// UnmarshalYAML reads a URL, or a list of them. An empty text means none.
func (l *TargetList) UnmarshalYAML(n *yaml.Node) error {
	for _, item := range oneOrMore(n) {
		target, err := parseTarget(item.Value)
		if err != nil {
			return misplaced{item, err}
		}
		*l = append(*l, target)
	}
	return nil
}

// parseTarget refuses a URL with a password, which belongs neither in a file nor on a command
// line.
func parseTarget(text string) (mslhttp.Target, error) {
	target, err := mslhttp.ParseTarget(text)
	if err == nil && target.URL.User != nil {
		return target, fmt.Errorf("%q: a URL must not contain a name and password: give them in server.upstream.headers, such as {Authorization: \"file:service.auth\"}", target)
	}
	return target, err
}

// Set replaces the addresses with those of flags, if there are any.
func (l *TargetList) Set(flags []string) error {
	var given TargetList
	for _, flag := range flags {
		if flag == "" {
			continue
		}
		target, err := parseTarget(flag)
		if err != nil {
			return exit.Usagef("upstream %w", err)
		}
		given = append(given, target)
	}
	if len(given) > 0 {
		*l = given
	}
	return nil
}

// check refuses values that would break every request.
func (u *Upstream) check() error {
	if err := u.TLS.check("server.upstream.tls"); err != nil {
		return err
	}
	if u.TLS.HTTP2 {
		return exit.Usagef("server.upstream.tls.http2 is on: requests to the service are HTTP/1.1; leave it out")
	}
	secure := slices.ContainsFunc(u.URL, func(t mslhttp.Target) bool { return t.URL.Scheme == "https" })
	if u.TLS != (ClientTLS{}) && len(u.URL) > 0 && !secure {
		return exit.Usagef("server.upstream.tls has settings, and no URL of the service begins with https: correct server.upstream.url, or leave them out")
	}
	if u.Check.Path == "" {
		return nil
	}
	if err := mslhttp.CheckHealthPath(u.Check.Path); err != nil {
		return exit.Usagef("server.upstream.check.path is %w", err)
	}
	return nil
}

// A headerMap maps headers to the sources of their values.
type headerMap map[string]string

// UnmarshalYAML reads names with sources.
func (m *headerMap) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return misplaced{n, fmt.Errorf("must be names with sources, such as {Authorization: \"file:service.token\"}")}
	}
	*m = headerMap{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, source := n.Content[i], n.Content[i+1]
		if err := mslhttp.CheckHeaderName(name.Value); err != nil {
			return misplaced{name, err}
		}
		if _, twice := (*m)[http.CanonicalHeaderKey(name.Value)]; twice {
			return misplaced{name, fmt.Errorf("%s is listed twice", name.Value)}
		}
		if _, err := secret.Parse(source.Value); err != nil {
			return misplaced{source, fmt.Errorf("not the value of %s, but its source: %w", name.Value, err)}
		}
		(*m)[http.CanonicalHeaderKey(name.Value)] = source.Value
	}
	return nil
}

// A bodyForm says how messages are sent to the service.
type bodyForm string

// UnmarshalYAML reads one of the names.
func (b *bodyForm) UnmarshalYAML(n *yaml.Node) error {
	switch n.Value {
	case "auto", "whole", "stream":
		*b = bodyForm(n.Value)
		return nil
	}
	return misplaced{n, fmt.Errorf("%q: want auto, whole or stream", n.Value)}
}

// An httpMethod is the name of an HTTP method.
type httpMethod string

// UnmarshalYAML reads a name that HTTP permits.
func (m *httpMethod) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return misplaced{n, fmt.Errorf("want the name of an HTTP method")}
	}
	if err := checkMethod(n.Value); n.Value != "" && err != nil {
		return misplaced{n, err}
	}
	*m = httpMethod(n.Value)
	return nil
}

// checkMethod refuses methods that no service accepts. Names of methods are case-sensitive
// (RFC 9110 section 9.1).
func checkMethod(name string) error {
	capital := strings.ToUpper(name)
	if _, err := http.NewRequest(name, "http://upstream/", nil); err != nil || name == "" || capital == "CONNECT" || capital == "TRACE" {
		return fmt.Errorf("%q: want the name of an HTTP method, other than CONNECT and TRACE", name)
	}
	if name != capital && slices.Contains(mslhttp.DefaultHTTPMethods(), capital) {
		return fmt.Errorf("%q: names of HTTP methods are in capital letters: want %s", name, capital)
	}
	return nil
}

// A proxyURL is the URL of a proxy, or empty.
type proxyURL string

// UnmarshalYAML checks the URL. Errors do not contain a password in it.
func (p *proxyURL) UnmarshalYAML(n *yaml.Node) error {
	*p = proxyURL(n.Value)
	if u := p.URL(); n.Kind != yaml.ScalarNode || n.Value != "" && (u == nil || u.Scheme != "http" || u.Hostname() == "" || !mslhttp.ValidPort(u)) {
		return misplaced{n, fmt.Errorf("want http://HOST:PORT of a proxy")}
	} else if u != nil && u.User != nil {
		return misplaced{n, fmt.Errorf("a URL must not contain a name and password: have the proxy admit this machine by its address")}
	}
	return nil
}

// URL returns nil if there is none.
func (p proxyURL) URL() *url.URL {
	u, err := url.Parse(string(p))
	if err != nil || p == "" {
		return nil
	}
	return u
}

func (u *Upstream) settle(dir string) {
	for i := range u.URL {
		if socket := &u.URL[i].Socket; !strings.HasPrefix(*socket, "@") { // which is no file
			*socket = within(dir, *socket)
		}
	}
	u.TLS.settle(dir)
	for name, source := range u.Headers {
		u.Headers[name] = Settled(dir, source)
	}
}
