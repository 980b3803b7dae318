package config

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/msl/mslhttp"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// HTTP says which HTTP requests in messages a server passes on: none, unless paths is set.
type HTTP struct {
	Paths           pathList   `yaml:"paths" example:"[/api/]"`                   // that devices may request; a path that ends with a slash includes everything below it; [/] means all
	Methods         methodList `yaml:"methods" example:"[GET, HEAD, POST]"`       // default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS
	RequestHeaders  headerList `yaml:"request-headers" example:"[Authorization]"` // passed on in addition to those listed in docs/http-over-msl.md
	ResponseHeaders headerList `yaml:"response-headers" example:"[X-Request-Id]"` // the same for responses
}

// On reports whether HTTP requests are passed on.
func (h *HTTP) On() bool { return len(h.Paths) > 0 }

// Rules returns the lists.
func (h *HTTP) Rules() mslhttp.HTTPRules {
	return mslhttp.HTTPRules{Paths: h.Paths, Methods: h.Methods, RequestHeaders: h.RequestHeaders, ResponseHeaders: h.ResponseHeaders}
}

type (
	pathList   []string
	methodList []string
	headerList []string
)

// UnmarshalYAML reads a list of paths.
func (l *pathList) UnmarshalYAML(n *yaml.Node) error {
	return decodeChecked(n, (*[]string)(l), mslhttp.CheckHTTPPath)
}

// UnmarshalYAML reads a list of methods.
func (l *methodList) UnmarshalYAML(n *yaml.Node) error {
	return decodeChecked(n, (*[]string)(l), checkMethod)
}

// UnmarshalYAML reads a list of names of headers.
func (l *headerList) UnmarshalYAML(n *yaml.Node) error {
	return decodeChecked(n, (*[]string)(l), mslhttp.CheckPassedHeader)
}

// decodeChecked reads a list whose items must be good, and different.
func decodeChecked(n *yaml.Node, into *[]string, check func(string) error) error {
	if n.Kind != yaml.SequenceNode {
		return misplaced{n, fmt.Errorf("must be a list, such as [a, b]")}
	}
	for _, item := range n.Content {
		if err := check(item.Value); err != nil {
			return misplaced{item, err}
		}
		if slices.Contains(*into, item.Value) {
			return misplaced{item, fmt.Errorf("%s is listed twice", item.Value)}
		}
		*into = append(*into, item.Value)
	}
	return nil
}

// check refuses lists that would have no effect.
func (h *HTTP) check() error {
	if !h.On() && len(h.Methods)+len(h.RequestHeaders)+len(h.ResponseHeaders) > 0 {
		return exit.Usagef("server.http has no paths, so nothing is passed on: name what devices may ask for, such as paths: [/]")
	}
	return nil
}
