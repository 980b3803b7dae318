package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A config is the configuration file, with defaults filled in. Paths in it are
// relative to the file.
type config struct {
	Keystore keystoreConfig `yaml:"keystore"`
	Server   serverConfig   `yaml:"server"`
	Client   clientConfig   `yaml:"client"`
}

type keystoreConfig struct {
	URI       string        `yaml:"uri"`        // pkcs11:… or soft:FILE
	SoftHSM   string        `yaml:"softhsm"`    // directory of a SoftHSM token
	PIN       string        `yaml:"pin"`        // source
	Sessions  int           `yaml:"sessions"`   // PKCS #11 sessions at work at a time
	Wait      time.Duration `yaml:"wait"`       // for a free one
	Prefix    string        `yaml:"prefix"`     // of the labels of our keys
	AllowWeak []string      `yaml:"allow-weak"` // weaknesses to live with
}

type serverConfig struct {
	Listen    string `yaml:"listen"`
	Identity  string `yaml:"identity"`
	Key       string `yaml:"key"`    // label of the identity key
	KeyID     string `yaml:"key-id"` // default: made of the public key
	State     string `yaml:"state"`
	X509Roots string `yaml:"x509-roots"`

	Require struct {
		Encrypted     bool `yaml:"encrypted"`
		Authenticated bool `yaml:"authenticated"`
	} `yaml:"require"`

	Compression []string      `yaml:"compression"`
	Languages   []string      `yaml:"languages"`
	Custody     string        `yaml:"custody"` // sealed, imported or shared
	RenewAfter  time.Duration `yaml:"renew-after"`
	Lifetime    time.Duration `yaml:"lifetime"`
	Limits      limitsConfig  `yaml:"limits"`

	Upstream        string        `yaml:"upstream"` // URL; empty: echo
	UpstreamMethod  string        `yaml:"upstream-method"`
	UpstreamTimeout time.Duration `yaml:"upstream-timeout"`
	Shutdown        time.Duration `yaml:"shutdown"` // for messages in flight
}

type limitsConfig struct {
	Body            int64         `yaml:"body"`   // bytes of a request
	Header          int           `yaml:"header"` // bytes
	Chunk           int           `yaml:"chunk"`  // bytes
	Inflate         int           `yaml:"inflate"`
	Sessions        int           `yaml:"sessions"`
	ErrorsPerSecond int           `yaml:"errors-per-second"`
	ErrorsPerSource int           `yaml:"errors-per-source"`
	Passwords       int           `yaml:"passwords"`
	Timeout         time.Duration `yaml:"timeout"` // of one exchange
}

type clientConfig struct {
	URL         string   `yaml:"url"`
	Identity    string   `yaml:"identity"`
	PSK         string   `yaml:"psk"`         // file
	Key         string   `yaml:"key"`         // label of the identity key
	KeyID       string   `yaml:"key-id"`      // default: made of the public key
	Certificate string   `yaml:"certificate"` // file, for X509
	Recipient   string   `yaml:"recipient"`   // identity of the server
	ServerKey   string   `yaml:"server-key"`  // file
	ServerKeyID string   `yaml:"server-key-id"`
	State       string   `yaml:"state"`
	User        string   `yaml:"user"`
	Password    string   `yaml:"password"` // source
	Compression []string `yaml:"compression"`
}

func defaultConfig() *config {
	c := &config{}
	c.Keystore.Prefix = "msl"
	c.Server.Listen = "127.0.0.1:8080"
	c.Server.Identity = "server"
	c.Server.Custody = "sealed"
	c.Server.Require.Encrypted, c.Server.Require.Authenticated = true, true
	c.Server.Compression = []string{"GZIP", "LZW"}
	c.Server.Languages = []string{"en"}
	c.Server.UpstreamMethod = "POST"
	c.Server.UpstreamTimeout = 30 * time.Second
	c.Server.Shutdown = 10 * time.Second
	c.Client.Recipient = "server"
	c.Client.Compression = []string{"GZIP", "LZW"}
	return c
}

// configure reads the configuration and applies the flags of every verb.
func (p *program) configure() (*config, error) {
	c := defaultConfig()
	path, err := p.configPath()
	if err != nil {
		return nil, err
	}
	if path != "" {
		if err := c.read(path); err != nil {
			return nil, coded{err, exitUsage}
		}
	}
	if err := notFromEnvironment("--pin", p.flags.pin); err != nil {
		return nil, err
	}
	override(&c.Keystore.URI, p.flags.keystore)
	override(&c.Keystore.SoftHSM, p.flags.softhsm)
	override(&c.Keystore.PIN, p.flags.pin)
	return c, nil
}

// override replaces a value by that of a flag, if it was given.
func override(value *string, flag string) {
	if flag != "" {
		*value = flag
	}
}

// configPath finds the configuration; none is fine unless one was named.
func (p *program) configPath() (string, error) {
	for _, named := range []string{p.flags.config, os.Getenv("MSL_HSM_CONFIG")} {
		if named != "" {
			return named, nil
		}
	}
	for _, usual := range []string{"msl-hsm.yaml", "/etc/msl-hsm/msl-hsm.yaml"} {
		_, err := os.Stat(usual)
		if err == nil {
			return usual, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", usagef("configuration: %w", err)
		}
	}
	return "", nil
}

func (c *config) read(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return usagef("configuration: %w", err)
	}
	if err := decodeYAML(path, data, c); err != nil {
		return err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	c.settle(dir)
	return nil
}

// settle makes the paths absolute.
func (c *config) settle(dir string) {
	for _, path := range []*string{
		&c.Keystore.SoftHSM, &c.Server.State, &c.Server.X509Roots,
		&c.Client.PSK, &c.Client.Certificate, &c.Client.ServerKey, &c.Client.State,
	} {
		*path = within(dir, *path)
	}
	for _, source := range []*string{&c.Keystore.PIN, &c.Client.Password, &c.Keystore.URI} {
		for _, kind := range []string{"file:", "soft:"} {
			if file, ok := strings.CutPrefix(*source, kind); ok {
				*source = kind + within(dir, file)
			}
		}
	}
}

func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
