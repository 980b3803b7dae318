package config

// Stream configures where persistent connections are accepted, for many messages and for
// channels.
type Stream struct {
	Path   string `yaml:"path"`                            // path of the URL for WebSockets, at server.listen; "none": no WebSockets
	Listen string `yaml:"listen" example:"127.0.0.1:8081"` // address for TCP, with TLS if server.tls has certificates; default: none
}

// Peer configures where peers connect, which issue tokens to this server as it does to them.
type Peer struct {
	Path         string       `yaml:"path" example:"/peer"`                         // path of the URL for WebSockets; default: none
	Listen       string       `yaml:"listen" example:"127.0.0.1:8082"`              // address for TCP, as in stream; default: none
	KeyExchanges exchangeList `yaml:"key-exchanges" example:"[ASYMMETRIC_WRAPPED]"` // to offer to peers, best first; default: SYMMETRIC_WRAPPED with psk-keys, else ASYMMETRIC_WRAPPED
	Push         bool         `yaml:"push"`                                         // also send messages posted at server.push.from to peers whose message was answered
}

// Push configures where clients wait for messages that the server sends on its own.
type Push struct {
	Path   string `yaml:"path" example:"/push"`                       // path of the URL for WebSockets; default: none
	Listen string `yaml:"listen" example:"127.0.0.1:8083"`            // address for TCP, as in stream; default: none
	From   string `yaml:"from" example:"unix:/run/msl-hsm/push.sock"` // where programs on this machine post messages: a socket, or a loopback address
}
