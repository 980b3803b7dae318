package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A Config is the configuration file, with defaults filled in. Paths in it are
// relative to the file.
type Config struct {
	Keystore Keystore `yaml:"keystore"`
	Server   Server   `yaml:"server"`
	Client   Client   `yaml:"client"`
}

type Keystore struct {
	URI         string        `yaml:"uri"`          // pkcs11:… or soft:FILE
	SoftHSM     string        `yaml:"softhsm"`      // directory of a SoftHSM token
	PIN         string        `yaml:"pin"`          // source
	Sessions    int           `yaml:"sessions"`     // PKCS #11 sessions at work at a time
	Wait        time.Duration `yaml:"wait"`         // for a free one
	CallTimeout time.Duration `yaml:"call-timeout"` // of a call into the module
	Prefix      string        `yaml:"prefix"`       // of the labels of our keys
	AllowWeak   []string      `yaml:"allow-weak"`   // weaknesses to live with

	Log *slog.Logger // of a process that lives long: told when the device is lost
}

type Server struct {
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
	DHGroups      GroupList    `yaml:"dh-groups"`

	X509Roots         string            `yaml:"x509-roots"` // files
	X509Intermediates string            `yaml:"x509-intermediates"`
	X509CRL           string            `yaml:"x509-crl"`
	X509RequireCRL    bool              `yaml:"x509-require-crl"`
	ModelGroups       map[string]string `yaml:"model-groups"` // label of the group key, by prefix of identities
	Provisioned       string            `yaml:"provisioned"`  // prefix of the identities that are given
	Enrollment        Enrollment        `yaml:"enrollment"`

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
	Limits       Limits        `yaml:"limits"`
	TLS          ServerTLS     `yaml:"tls"`

	Failures Failures `yaml:"failures"`

	Upstream        string        `yaml:"upstream"` // URL; empty: echo
	UpstreamMethod  string        `yaml:"upstream-method"`
	UpstreamTimeout time.Duration `yaml:"upstream-timeout"` // until its answer begins
	Shutdown        time.Duration `yaml:"shutdown"`         // for messages in flight
}

type Limits struct {
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

// ClientLimits are what an answer may cost. Zero is the default.
type ClientLimits struct {
	Answer  int64 `yaml:"answer"` // bytes, as it travels
	Header  int   `yaml:"header"` // bytes
	Chunk   int   `yaml:"chunk"`  // bytes
	Inflate int   `yaml:"inflate"`
}

type Client struct {
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

	Limits ClientLimits `yaml:"limits"`
	Agent  Agent        `yaml:"agent"`

	TLS ClientTLS `yaml:"tls"`

	Failures FailureReports `yaml:"failures"`
}

func Default() *Config {
	c := &Config{}
	c.Keystore.Prefix = "msl"
	c.Server.Listen = "127.0.0.1:8080"
	c.Server.Identity = "server"
	c.Server.Custody = "sealed"
	c.Server.Require.Encrypted, c.Server.Require.Authenticated = true, true
	c.Server.Compression = []string{"GZIP", "LZW"}
	c.Server.Languages = []string{"en"}
	c.Server.UpstreamMethod = "POST"
	c.Server.Shutdown = DefaultShutdown
	c.Server.Failures.Path, c.Server.Failures.Allow = "/failures", "registered"
	c.Server.Enrollment.Path = "/enroll"
	c.Server.Enrollment.Unknown = "hold"
	c.Client.Recipient = "server"
	c.Client.UserScheme = "EMAIL_PASSWORD"
	c.Client.Custody = "sealed"
	c.Client.Compression = []string{"GZIP", "LZW"}
	c.Client.Agent = Agent{Body: 24 << 20, Requests: 128, Timeout: time.Minute, Shutdown: DefaultShutdown}
	return c
}

// Override replaces a value by that of a flag, if it was given.
func Override(value *string, flag string) {
	if flag != "" {
		*value = flag
	}
}

func (c *Config) Read(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return exit.Usagef("configuration: %w", err)
	}
	if err := DecodeYAML(path, data, c); err != nil {
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
func (c *Config) settle(dir string) {
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
		*source = Settled(dir, *source)
	}
}

func Nonzero(d, absent time.Duration) time.Duration {
	if d == 0 {
		return absent
	}
	return d
}

// DefaultShutdown is the time that a server or an agent has to end once it is told
// to.
const DefaultShutdown = 10 * time.Second
