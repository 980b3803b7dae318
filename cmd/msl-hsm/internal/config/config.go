package config

import (
	"log/slog"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config is the configuration file, with defaults filled in. Paths in it are
// relative to the file.
type Config struct {
	Keystore Keystore `yaml:"keystore"`
	Server   Server   `yaml:"server"`
	Client   Client   `yaml:"client"`

	Blank bool // the file that was read has no setting, as if every line were a comment

	path string // of the file that was read
	data []byte // in that file
}

// Keystore configures where the keys are.
type Keystore struct {
	URI            string        `yaml:"uri" example:"pkcs11:token=prod?module-path=/usr/lib/vendor.so"` // or soft:FILE, or tpm:?state=FILE
	Tokens         []string      `yaml:"tokens" example:"[hsm-a, hsm-b]"`                                // instead of a token in uri: labels or URIs of PKCS #11 tokens that hold the same keys, such as clones; parts missing from a URI are taken from uri
	SoftHSM        string        `yaml:"softhsm" example:"dev"`                                          // directory of a SoftHSM token; its module is found automatically
	Initialize     string        `yaml:"initialize" example:"configdir='sql:/etc/nss' flags="`           // text passed to C_Initialize of the PKCS #11 module; NSS needs one; default: none
	PIN            string        `yaml:"pin" example:"credential:pin"`                                   // source of the PIN, or of the passphrase of a soft: file
	Argon2         Argon2        `yaml:"argon2"`                                                         // Argon2id cost of that passphrase; an existing file gets a new cost when key create or key import changes it
	Owner          string        `yaml:"owner-password" example:"credential:owner"`                      // source of the password of the TPM's owner hierarchy, if it has one; needed for tpm init, for anti-rollback, and if another program removed the storage key
	Endorsement    string        `yaml:"endorsement-password" example:"credential:endorsement"`          // the same for the endorsement hierarchy; needed for tpm init, enroll and renew
	Lockout        string        `yaml:"lockout-password" example:"credential:lockout"`                  // the same for the lockout hierarchy; needed for tpm unlock
	EKService      EKService     `yaml:"ek-service" example:"intel"`                                     // maker's service that tpm init asks for the certificate of the TPM's endorsement key, if the TPM does not contain it: intel, amd, or either with another URL, such as intel:https://HOST/PATH; default: none
	Sessions       SessionBound  `yaml:"sessions" example:"32"`                                          // maximum number of PKCS #11 sessions in use at the same time; default: auto, as many as the load needs and the token allows
	Wait           time.Duration `yaml:"wait" example:"5s"`                                              // how long to wait for a free session
	CallTimeout    time.Duration `yaml:"call-timeout" example:"10s"`                                     // for one call into the PKCS #11 module; while a call takes longer, the key store counts as unavailable
	Isolate        bool          `yaml:"isolate"`                                                        // run the PKCS #11 module in a separate process, so that its crash or hang does not affect this one
	IsolateMemory  int64         `yaml:"isolate-memory" example:"1073741824"`                            // bytes that this process may occupy before it is replaced; negative: no limit
	IsolateSandbox bool          `yaml:"isolate-sandbox"`                                                // keep that process from running programs, inspecting other processes and accepting connections, if the kernel supports it
	Prefix         string        `yaml:"prefix"`                                                         // first part of the labels of the keys
	Random         string        `yaml:"random" example:"mixed"`                                         // os, the default: from the operating system; or mixed: combined with random bytes of the HSM or TPM
	SessionKeys    string        `yaml:"session-keys" example:"memory"`                                  // token, the default: in the PKCS #11 token; or memory: in locked memory of this process, for a token that cannot make them; needs custody imported or shared
	TrustedWrap    bool          `yaml:"trusted-wrapping"`                                               // make sealing keys whose blobs key rewrap can move to newer sealing keys that the security officer marked as trusted (PKCS #11)
	AllowWeak      []string      `yaml:"allow-weak"`                                                     // weaknesses of the keys and the module to accept; key show names them

	Log           *slog.Logger                    // of a long-running process: logs when the device is lost
	CheapForTests bool                            // permits a cost, also of passwords, that makes guessing easy
	Calls         func(keystore.Call)             // called for each operation of a PKCS #11 token, or nil
	Login         func(give func() error) error   // called to give a PKCS #11 token its PIN, or nil
	Slow          func(what string) (done func()) // shows what takes long until done is called, or nil
	Refusals      string                          // file with the starts in a row at which the token did not accept the PIN, or ""
	Ends          <-chan struct{}                 // closed when a process with such a file is to end
	Pauses        func(time.Duration)             // called before such a process pauses at its start, or nil
}

// Server configures a server.
type Server struct {
	Listen      string `yaml:"listen"`                           // address for HTTP, or HTTPS with tls
	Identity    string `yaml:"identity"`                         // its name, as devices know it
	Key         string `yaml:"key" example:"msl-identity"`       // label of the RSA or EC key that proves it
	KeyID       string `yaml:"key-id" example:"key-1"`           // the name of that key on the wire; default: derived from the public key
	Certificate string `yaml:"certificate" example:"server.crt"` // for that key; its subject becomes the identity
	PSKKeys     string `yaml:"psk-keys" example:"server-psk"`    // or, instead of key: labels of pre-shared keys
	State       State  `yaml:"state"`                            // entities, users, revocations, replay protection; state: FILE is short for a section with only file

	TrustedProxies networkList `yaml:"trusted-proxies" example:"[10.0.0.0/8]"` // proxies whose X-Forwarded-For or Forwarded header is trusted; each must set the header itself; default: none
	ProxyProtocol  bool        `yaml:"proxy-protocol"`                         // whether connections from these proxies begin with the PROXY protocol, version 1 or 2

	Argon2 Argon2 `yaml:"argon2"` // Argon2id cost of user passwords; an existing password gets a new cost at the next login

	EntitySchemes entityList   `yaml:"entity-schemes" example:"[PSK, RSA]"`                                                                                        // default: every scheme that the other settings allow
	UserSchemes   userList     `yaml:"user-schemes" example:"[EMAIL_PASSWORD, USER_ID_TOKEN]"`                                                                     // default: all
	UserRules     UserRules    `yaml:"user-rules" example:"\n- {entity: kiosk-, user: '@example.com', schemes: [USER_ID_TOKEN]}\n- {entity: kiosk-, schemes: []}"` // which users may log in where: the first rule that matches decides; entity matches the beginning of an identity, user the end of a user name; default: no restrictions
	KeyExchanges  exchangeList `yaml:"key-exchanges" example:"[SYMMETRIC_WRAPPED, ASYMMETRIC_WRAPPED]"`                                                            // best first; default: all that custody allows, except JWK_RSAES
	DHGroups      GroupList    `yaml:"dh-groups" example:"[ffdhe2048, modp2048]"`                                                                                  // for DIFFIE_HELLMAN; default: all

	X509Roots         string            `yaml:"x509-roots" example:"roots.pem"`             // root certificates for the certificates of entities; default: none
	X509Intermediates string            `yaml:"x509-intermediates" example:"between.pem"`   // certificates between the roots and those of entities
	X509CRL           string            `yaml:"x509-crl" example:"revoked.pem"`             // revocation lists; the server reads the file again when it changes
	X509RequireCRL    bool              `yaml:"x509-require-crl"`                           // refuse certificates whose issuer has no revocation list
	ModelGroups       map[string]string `yaml:"model-groups" example:"\nCAM7-: group-cam7"` // MGK: prefix of the identities, and label of the group key
	Provisioned       string            `yaml:"provisioned" example:"guest-"`               // PROVISIONED: prefix of the identities that the server gives out; default: it gives out none
	Enrollment        Enrollment        `yaml:"enrollment"`                                 // enrollment of devices with a TPM; default: none

	Require struct {
		Encrypted     bool `yaml:"encrypted"`
		Authenticated bool `yaml:"authenticated"`
		NonReplayable bool `yaml:"non-replayable"`
	} `yaml:"require"` // protection of every message; the sender of any other is asked to repeat it with a key exchange

	Compression  []string      `yaml:"compression"`                      // algorithms for answers, best first; a message uses one that its sender understands
	Languages    []string      `yaml:"languages" example:"[en]"`         // languages named in answers; default: those of messages, or en
	Messages     string        `yaml:"messages" example:"messages.yaml"` // texts for users, sent with errors, by language and error; default: none
	Custody      string        `yaml:"custody"`                          // sealed: session keys stay in the token; or imported, or shared
	RenewAfter   time.Duration `yaml:"renew-after" example:"1h"`         // age at which devices renew a master token
	Lifetime     time.Duration `yaml:"lifetime" example:"24h"`           // of a master token
	RenewExpired time.Duration `yaml:"renew-expired" example:"720h"`     // how long an expired master token can still be renewed; after that the device begins a new session; default: user-lifetime

	UserRenewAfter   time.Duration `yaml:"user-renew-after" example:"1h"`    // the same for a user ID token, the login that a device keeps
	UserLifetime     time.Duration `yaml:"user-lifetime" example:"720h"`     // of a user ID token; a device in use keeps renewing it, without limit
	UserRenewExpired time.Duration `yaml:"user-renew-expired" example:"24h"` // how long an expired user ID token can still be renewed; after that the user logs in again; default: as long as the device's session

	Limits Limits    `yaml:"limits"` // 0 means the default
	TLS    ServerTLS `yaml:"tls"`    // TLS below MSL; default: none

	Stream Stream `yaml:"stream"` // persistent connections, for many messages and for channels
	Peer   Peer   `yaml:"peer"`   // the same, for peers, which also issue tokens to this server
	Push   Push   `yaml:"push"`   // the same, for clients that wait for messages from the server

	Failures Failures `yaml:"failures"` // reports of cryptographic failures from devices

	Admin     Admin  `yaml:"admin"`                                              // for operators; default: only the socket beside the state file
	AccessLog string `yaml:"access-log" example:"/var/log/msl-hsm/access.jsonl"` // a line of JSON for each message: in a file; log: in the log itself; or none, the default

	Watch Watch `yaml:"watch" example:"5s"` // how often to check the files that a reload reads, including this one, for changes; a change is applied once the file stays the same, as by msl-hsm admin reload; or off

	Audit Audit `yaml:"audit"` // tamper-evident log of who did what; default: none

	HTTP HTTP `yaml:"http"` // HTTP requests from programs that use an agent; default: none

	Upstream        Upstream      `yaml:"upstream"`                       // the HTTP service behind this gateway; upstream: URL is short for a section with only url
	UpstreamMethod  string        `yaml:"upstream-method"`                // older name of upstream.method
	UpstreamTimeout time.Duration `yaml:"upstream-timeout" example:"30s"` // older name of upstream.timeout
	Shutdown        time.Duration `yaml:"shutdown"`                       // time to finish messages in progress
	Drain           time.Duration `yaml:"drain" example:"0s"`             // before that: how long it still accepts messages after a signal while reporting that it is not ready, so that load balancers notice
}

// Client configures a client and the agent.
type Client struct {
	URL          string `yaml:"url" example:"http://127.0.0.1:8080/"` // or https, ws, wss, tcp or tls
	Peer         bool   `yaml:"peer"`                                 // the server is a peer: this side also issues tokens to it
	EntityScheme string `yaml:"entity-scheme" example:"PSK"`          // default: inferred from the other settings
	Identity     string `yaml:"identity" example:"camera-1"`          // default: that of the PSK file or the certificate
	Suffix       string `yaml:"suffix" example:"app-1"`               // NONE_SUFFIXED: the part after the identity
	PSK          string `yaml:"psk" example:"camera-1.psk"`           // file of pre-shared keys; or
	PSKKeys      string `yaml:"psk-keys" example:"camera-psk"`        // labels of pre-shared keys in the key store; or
	Profile      string `yaml:"profile" example:"night"`              // PSK_PROFILE: name of the profile
	Key          string `yaml:"key" example:"msl-identity"`           // label of the client's RSA or EC key
	KeyID        string `yaml:"key-id" example:"key-1"`               // default: derived from the public key
	Certificate  string `yaml:"certificate" example:"camera.crt"`     // for that key; its subject is the identity
	EarlierState string `yaml:"earlier-state" example:"old.db"`       // state of an earlier session, for MT_PROTECTED and USER_ID_TOKEN

	Recipient           string `yaml:"recipient"`                                  // identity of the server
	ServerKey           string `yaml:"server-key" example:"server.pem"`            // the server's public key; or
	ServerKeyID         string `yaml:"server-key-id" example:"key-1"`              // default: derived from the public key
	ServerRoots         string `yaml:"server-roots" example:"roots.pem"`           // root certificates for the server's certificate; or
	ServerIntermediates string `yaml:"server-intermediates" example:"between.pem"` // certificates between the roots and the server's
	ServerPSK           string `yaml:"server-psk" example:"server.psk"`            // the server's pre-shared keys

	KeyExchanges exchangeList `yaml:"key-exchanges" example:"[SYMMETRIC_WRAPPED]"` // to offer, best first; default: this one with pre-shared keys, else ASYMMETRIC_WRAPPED
	DHGroup      string       `yaml:"dh-group" example:"ffdhe2048"`                // for DIFFIE_HELLMAN
	Custody      string       `yaml:"custody" example:"sealed"`                    // sealed: session keys stay in the key store; or imported, or shared; default: sealed, or imported with a TPM that has no AES

	State        string   `yaml:"state" example:"client.db"`      // file of tokens; default: none, every call begins a new session
	AntiRollback string   `yaml:"anti-rollback" example:"false"`  // true, or an NV index: bind the state to a counter in the TPM
	User         string   `yaml:"user" example:"ada@example.com"` // to log in; default: none
	UserScheme   string   `yaml:"user-scheme"`                    // or USER_ID_TOKEN
	Password     string   `yaml:"password" example:"prompt"`      // source of the password
	Compression  []string `yaml:"compression"`                    // algorithms for messages and their answers, best first
	Languages    []string `yaml:"languages" example:"[de, en]"`   // for error texts for the user, best first; default: the server chooses

	Limits ClientLimits `yaml:"limits"` // of answers; 0 means the default
	Agent  Agent        `yaml:"agent"`
	Attest Attest       `yaml:"attest"` // for an agent on a machine that enrolled with its TPM: regularly prove to the server the state in which the machine was started

	TLS ClientTLS `yaml:"tls"` // for https URLs

	Failures FailureReports `yaml:"failures"` // reports of this client's cryptographic failures
}

// SessionsInMemory is the value of keystore.session-keys for session keys that are not in
// the token.
const SessionsInMemory = "memory"

// RandomMixed is the value of keystore.random for random bytes of two sources combined.
const RandomMixed = "mixed"

// Default returns the configuration that applies without a file.
func Default() *Config {
	c := &Config{}
	c.Keystore.Prefix = "msl"
	c.Keystore.IsolateSandbox = true
	c.Server.Listen = "127.0.0.1:8080"
	c.Server.Identity = "server"
	c.Server.Custody = "sealed"
	c.Server.Require.Encrypted, c.Server.Require.Authenticated = true, true
	c.Server.Compression = []string{"GZIP", "LZW"}
	c.Server.Shutdown = DefaultShutdown
	c.Server.Watch = DefaultWatch
	c.Server.Stream.Path = "/"
	c.Server.Failures = noFailures()
	c.Server.Enrollment = noEnrollment()
	c.Client.Recipient = "server"
	c.Client.UserScheme = "EMAIL_PASSWORD"
	c.Client.Compression = []string{"GZIP", "LZW"}
	c.Client.Attest.PCR = DefaultPCRs()
	c.Client.Agent = Agent{Body: 24 << 20, Requests: 128, Timeout: time.Minute, Shutdown: DefaultShutdown, Watch: DefaultWatch}
	return c
}

// None reports whether no key store is configured.
func (k *Keystore) None() bool { return k.URI == "" && k.SoftHSM == "" && len(k.Tokens) == 0 }

// UseOnly makes uri the only key store, unless it is empty.
func (k *Keystore) UseOnly(uri string) {
	if uri != "" {
		k.URI, k.Tokens = uri, nil
	}
}

// Override replaces a value with that of a flag, if the flag is not empty.
func Override(value *string, flag string) {
	if flag != "" {
		*value = flag
	}
}

// DefaultShutdown is the time that a server or an agent has to shut down.
const DefaultShutdown = 10 * time.Second

// DefaultWatch is how often files are checked for changes.
const DefaultWatch = Watch(5 * time.Second)
