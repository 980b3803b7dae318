package config

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/msl/usermsg"
)

// ReadMessages reads the file of server.messages: a section for each language, with a
// text for each error. It returns nil if no file is named.
func (s *Server) ReadMessages() (*usermsg.Catalog, error) {
	if s.Messages == "" {
		return nil, nil
	}
	data, err := plainfile.Read(s.Messages)
	if err != nil {
		return nil, exit.Usagef("server.messages: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 { // as while it is being written
		return nil, exit.Usagef("server.messages: %s is empty: write texts into it, or remove the setting", s.Messages)
	}
	catalog, err := parseMessages(s.Messages, data)
	if err != nil {
		return nil, exit.WithCode(err, exit.Usage)
	}
	return catalog, nil
}

func parseMessages(path string, data []byte) (*usermsg.Catalog, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	c := &usermsg.Catalog{}
	if len(document.Content) == 0 {
		return c, nil // nothing but comments
	}
	f := yamlFile(path)
	err := f.pairs(document.Content[0], "languages, as in \"en:\"", func(tag, texts *yaml.Node) error {
		return f.pairs(texts, "errors with their texts, as in \"FAIL: It did not work.\"", func(about, text *yaml.Node) error {
			if text.Kind != yaml.ScalarNode {
				return f.errorf(text, "%s in %s must be a text", about.Value, tag.Value)
			}
			if text.Tag == "!!null" {
				return f.errorf(text, "%s in %s has no value", about.Value, tag.Value)
			}
			if err := c.Add(tag.Value, about.Value, text.Value); err != nil {
				return f.errorf(about, "%w", err)
			}
			return nil
		})
	})
	return c, err
}

// pairs goes through a section, in the order of the file.
func (f yamlFile) pairs(n *yaml.Node, want string, each func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return f.errorf(n, "want %s", want)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := each(n.Content[i], n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// checkLanguages refuses values that are not languages.
func checkLanguages(setting string, tags []string) error {
	for _, tag := range tags {
		if parsed, err := language.Parse(tag); err != nil || parsed == language.Und {
			return exit.Usagef("%s: %q is not a language: want a BCP 47 tag like en or pt-BR", setting, tag)
		}
	}
	return nil
}

// CheckLanguages refuses values of client.languages that are not languages.
func (c *Client) CheckLanguages() error { return checkLanguages("client.languages", c.Languages) }
