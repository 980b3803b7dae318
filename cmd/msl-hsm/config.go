package main

import (
	"errors"
	"io/fs"
	"log/slog"
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
	URI         string        `yaml:"uri"`          // pkcs11:… or soft:FILE
	SoftHSM     string        `yaml:"softhsm"`      // directory of a SoftHSM token
	PIN         string        `yaml:"pin"`          // source
	Sessions    int           `yaml:"sessions"`     // PKCS #11 sessions at work at a time
	Wait        time.Duration `yaml:"wait"`         // for a free one
	CallTimeout time.Duration `yaml:"call-timeout"` // of a call into the module
	Prefix      string        `yaml:"prefix"`       // of the labels of our keys
	AllowWeak   []string      `yaml:"allow-weak"`   // weaknesses to live with

	log *slog.Logger // of a process that lives long: told when the device is lost
}

type serverConfig struct {
	Listen      string `yaml:"listen"`
	Identity    string `yaml:"identity"`
	Key         string `yaml:"key"`         // label of the identity key
	KeyID       string `yaml:"key-id"`      // default: made of the public key
	Certificate string `yaml:"certificate"` // file, for X509
	PSKKeys     string `yaml:"psk-keys"`    // start of the labels of our pre-shared keys
	State       string `yaml:"state"`

	TrustedProxies networkList `yaml:"trusted-proxies"`
	ProxyProtocol  bool        `yaml:"proxy-protocol"` // of the connections of trusted proxies

	EntitySchemes entityList   `yaml:"entity-schemes"`
	UserSchemes   userList     `yaml:"user-schemes"`
	KeyExchanges  exchangeList `yaml:"key-exchanges"` // in order of preference
	DHGroups      groupList    `yaml:"dh-groups"`

	X509Roots         string            `yaml:"x509-roots"` // files
	X509Intermediates string            `yaml:"x509-intermediates"`
	X509CRL           string            `yaml:"x509-crl"`
	X509RequireCRL    bool              `yaml:"x509-require-crl"`
	ModelGroups       map[string]string `yaml:"model-groups"` // label of the group key, by prefix of identities
	Provisioned       string            `yaml:"provisioned"`  // prefix of the identities that are given
	Enrollment        enrollmentConfig  `yaml:"enrollment"`

	Require struct {
		Encrypted     bool `yaml:"encrypted"`
		Authenticated bool `yaml:"authenticated"`
		NonReplayable bool `yaml:"non-replayable"`
	} `yaml:"require"`

	Compression  []string      `yaml:"compression"`
	Languages    []string      `yaml:"languages"`
	Custody      string        `yaml:"custody"` // sealed, imported or shared
	RenewAfter   time.Duration `yaml:"renew-after"`
	Lifetime     time.Duration `yaml:"lifetime"`
	RenewExpired time.Duration `yaml:"renew-expired"` // after its end a master token is still renewed
	Limits       limitsConfig  `yaml:"limits"`
	TLS          serverTLS     `yaml:"tls"`

	Failures failuresConfig `yaml:"failures"`

	Upstream        string        `yaml:"upstream"` // URL; empty: echo
	UpstreamMethod  string        `yaml:"upstream-method"`
	UpstreamTimeout time.Duration `yaml:"upstream-timeout"` // until its answer begins
	Shutdown        time.Duration `yaml:"shutdown"`         // for messages in flight
}

type limitsConfig struct {
	Body            int64         `yaml:"body"`   // bytes of a request
	Header          int           `yaml:"header"` // bytes
	Chunk           int           `yaml:"chunk"`  // bytes
	Held            int           `yaml:"held"`   // bytes of an answer that waits for its request
	Inflate         int           `yaml:"inflate"`
	Sessions        int           `yaml:"sessions"`
	ErrorsPerSecond int           `yaml:"errors-per-second"`
	ErrorsPerSource int           `yaml:"errors-per-source"`
	Passwords       int           `yaml:"passwords"`
	Timeout         time.Duration `yaml:"timeout"` // of one exchange
	Idle            time.Duration `yaml:"idle"`    // of an answer that streams, instead

	Connections          int   `yaml:"connections"`            // at a time; negative is no bound
	ConnectionsPerSource int   `yaml:"connections-per-source"` // negative is no bound
	Unproven             int64 `yaml:"unproven"`               // bytes of memory of messages of strangers
	Proven               int64 `yaml:"proven"`                 // and of those who proved who they are
}

// clientLimits are what an answer may cost. Zero is the default.
type clientLimits struct {
	Answer  int64 `yaml:"answer"` // bytes, as it travels
	Header  int   `yaml:"header"` // bytes
	Chunk   int   `yaml:"chunk"`  // bytes
	Inflate int   `yaml:"inflate"`
}

type clientConfig struct {
	URL          string `yaml:"url"`
	EntityScheme string `yaml:"entity-scheme"` // default: what fits the rest
	Identity     string `yaml:"identity"`
	Suffix       string `yaml:"suffix"`        // for NONE_SUFFIXED
	PSK          string `yaml:"psk"`           // file
	PSKKeys      string `yaml:"psk-keys"`      // start of the labels of our pre-shared keys
	Profile      string `yaml:"profile"`       // for PSK_PROFILE
	Key          string `yaml:"key"`           // label of the identity key
	KeyID        string `yaml:"key-id"`        // default: made of the public key
	Certificate  string `yaml:"certificate"`   // file, for X509
	EarlierState string `yaml:"earlier-state"` // file, for MT_PROTECTED and USER_ID_TOKEN

	Recipient           string `yaml:"recipient"`  // identity of the server
	ServerKey           string `yaml:"server-key"` // files
	ServerKeyID         string `yaml:"server-key-id"`
	ServerRoots         string `yaml:"server-roots"`
	ServerIntermediates string `yaml:"server-intermediates"`
	ServerPSK           string `yaml:"server-psk"`

	KeyExchanges exchangeList `yaml:"key-exchanges"` // in order of preference
	DHGroup      string       `yaml:"dh-group"`
	Custody      string       `yaml:"custody"`

	State        string   `yaml:"state"`
	AntiRollback string   `yaml:"anti-rollback"` // true, or the NV index of a counter
	User         string   `yaml:"user"`
	UserScheme   string   `yaml:"user-scheme"`
	Password     string   `yaml:"password"` // source
	Compression  []string `yaml:"compression"`

	Limits clientLimits `yaml:"limits"`
	Agent  agentConfig  `yaml:"agent"`

	TLS clientTLS `yaml:"tls"`

	Failures failureReports `yaml:"failures"`
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
	c.Server.Shutdown = defaultShutdown
	c.Server.Failures.Path, c.Server.Failures.Allow = "/failures", "registered"
	c.Server.Enrollment.Path = "/enroll"
	c.Server.Enrollment.Unknown = "hold"
	c.Client.Recipient = "server"
	c.Client.UserScheme = "EMAIL_PASSWORD"
	c.Client.Custody = "sealed"
	c.Client.Compression = []string{"GZIP", "LZW"}
	c.Client.Agent = agentConfig{Body: 24 << 20, Requests: 128, Timeout: time.Minute, Shutdown: defaultShutdown}
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
			return nil, withCode(err, exitUsage)
		}
	}
	if err := notFromEnvironment("--pin", p.flags.pin); err != nil {
		return nil, err
	}
	override(&c.Keystore.URI, p.flags.keystore)
	override(&c.Keystore.SoftHSM, p.flags.softhsm)
	override(&c.Keystore.PIN, p.flags.pin)
	if here, err := os.Getwd(); err == nil {
		c.Keystore.URI = settled(here, c.Keystore.URI)
	}
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
	return check(c)
}

// settle makes the paths absolute.
func (c *config) settle(dir string) {
	c.settleTLS(dir)
	c.Client.Agent.settle(dir)
	for _, path := range []*string{
		&c.Keystore.SoftHSM, &c.Server.State, &c.Server.Certificate,
		&c.Server.X509Roots, &c.Server.X509Intermediates, &c.Server.X509CRL,
		&c.Server.Enrollment.State, &c.Server.Enrollment.CA, &c.Server.Enrollment.EKRoots,
		&c.Client.PSK, &c.Client.Certificate, &c.Client.State, &c.Client.EarlierState,
		&c.Server.Failures.Log, &c.Client.Failures.Spool,
		&c.Client.ServerKey, &c.Client.ServerRoots, &c.Client.ServerIntermediates, &c.Client.ServerPSK,
	} {
		*path = within(dir, *path)
	}
	for _, source := range []*string{&c.Keystore.PIN, &c.Client.Password, &c.Keystore.URI} {
		*source = settled(dir, *source)
	}
}

// settled makes the path in a source absolute.
func settled(dir, source string) string {
	for _, kind := range []string{"file:", "soft:"} {
		if file, ok := strings.CutPrefix(source, kind); ok {
			return kind + within(dir, file)
		}
	}
	if strings.HasPrefix(source, "tpm:") {
		return settledTPM(dir, source)
	}
	return source
}

func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
