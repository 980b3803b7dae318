package msl

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// A HeaderInfo describes the header of a message for troubleshooting: names, numbers and
// choices. It contains no key, password, authentication data, token or error text, and
// nothing of the application data.
//
// A received header is reported once it is verified and parsed. The message may still be
// refused: for an unknown user, for example, or as a replay.
type HeaderInfo struct {
	Sent bool // by this side; false means received

	// Identity is the sender. It is empty for an answer under the receiver's own master
	// token, whose sender is that token's issuer.
	Identity                 string
	Scheme                   string       // entity scheme of the sender, or empty under
	MasterToken              TokenNumbers // its master token
	Encrypted, Authenticated bool         // how the header itself is protected

	MessageID            int64
	Timestamp            time.Time // zero if the header has none
	NonReplayableID      int64     // or -1
	Renewable, Handshake bool
	Compression          []string // algorithms the sender can read
	Languages            []string // of its user

	KeyRequests   []string     // schemes
	KeyResponse   string       // scheme, or empty; it delivers
	Issued        TokenNumbers // this master token
	UserScheme    string       // of user authentication data, or empty
	UserIDToken   int64        // serial number, or -1
	ServiceTokens []string     // their names

	// Tokens that the sender issued, shown in a peer-to-peer network.
	PeerMasterToken   TokenNumbers
	PeerUserIDToken   int64 // serial number, or -1
	PeerServiceTokens []string

	Response     ResponseCode // of an error message, or 0
	InternalCode int64        // of an error message, or -1
}

// TokenNumbers identify a master token. Without a token, Serial is -1.
type TokenNumbers struct {
	Serial, Sequence int64
}

// String returns both numbers, or "" without a token.
func (n TokenNumbers) String() string {
	if n.Serial < 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", n.Serial, n.Sequence)
}

func numbersOf(t *MasterToken) TokenNumbers {
	if t == nil {
		return TokenNumbers{absent, absent}
	}
	return TokenNumbers{t.SerialNumber, t.SequenceNumber}
}

func serialOf(t *UserIDToken) int64 {
	if t == nil {
		return absent
	}
	return t.SerialNumber
}

func namesOf(list []*ServiceToken) (names []string) {
	for _, t := range list {
		names = append(names, t.Name)
	}
	return names
}

// A watcher is called with headers. A nil one costs nothing.
type watcher func(HeaderInfo)

// received reports a header that was read.
func (w watcher) received(in *incoming) {
	if w == nil {
		return
	}
	var i HeaderInfo
	if in.err != nil {
		i = infoOfError(in.err.MessageID, in.timestamp, in.err.Response, in.err.InternalCode)
	} else {
		i = in.header.info()
	}
	i.Identity, i.Scheme, i.MasterToken = in.sender.Identity, in.scheme, numbersOf(in.token)
	i.Encrypted, i.Authenticated = in.sender.Encrypted, in.sender.Authenticated
	w(i)
}

// sends returns a function that reports a header once it is sent, or nil.
func (w watcher) sends(h *header, now time.Time, us identification, from LocalEntity, identity string) func() {
	if w == nil {
		return nil
	}
	i := h.info()
	i.Timestamp = now.Truncate(time.Second)
	return func() { w(i.sentBy(us, from, identity)) }
}

// sentError reports an error message that was sent.
func (w watcher) sentError(id int64, now time.Time, a errorAnswer, us identification, from LocalEntity) {
	if w == nil {
		return
	}
	i := infoOfError(id, now.Unix(), a.response, a.internal)
	w(i.sentBy(us, from, us.local.Identity))
}

// sentBy adds the sender of a message from this side.
func (i HeaderInfo) sentBy(us identification, from LocalEntity, identity string) HeaderInfo {
	p := protectionOf(from, us.token)
	i.Sent, i.Identity, i.Scheme, i.MasterToken = true, identity, us.scheme, numbersOf(us.token)
	if us.token != nil {
		i.Scheme = ""
	}
	i.Encrypted, i.Authenticated = p.encrypted, p.authenticated
	return i
}

func infoOfError(id, timestamp int64, response ResponseCode, internal int64) HeaderInfo {
	h := header{messageID: id, timestamp: timestamp, nonReplayableID: absent}
	i := h.info()
	i.Response, i.InternalCode = response, internal
	return i
}

// info is the content of a header, apart from its sender.
func (h *header) info() HeaderInfo {
	i := HeaderInfo{
		MessageID: h.messageID, NonReplayableID: h.nonReplayableID, Renewable: h.renewable, Handshake: h.handshake,
		Issued: numbersOf(nil), UserIDToken: serialOf(h.userIDToken), ServiceTokens: namesOf(h.serviceTokens),
		PeerMasterToken: numbersOf(h.peer.master), PeerUserIDToken: serialOf(h.peer.user), PeerServiceTokens: namesOf(h.peer.services),
		InternalCode: absent,
	}
	if h.timestamp != absent {
		i.Timestamp = seconds(h.timestamp)
	}
	if h.capabilities != nil {
		i.Compression, i.Languages = slices.Clone(h.capabilities.Compression), slices.Clone(h.capabilities.Languages)
	}
	for _, r := range h.keyRequests {
		i.KeyRequests = append(i.KeyRequests, r.scheme)
	}
	if h.keyResponse != nil {
		i.KeyResponse, i.Issued = h.keyResponse.scheme, numbersOf(h.keyResponse.token)
	}
	if h.userAuth != nil {
		i.UserScheme = h.userAuth.scheme
	}
	return i
}

// maxAttribute is how many bytes of a name or a list are shown: a peer may fill a whole
// header.
const maxAttribute = 1000

// attributes are the values to log, by name.
func (i HeaderInfo) attributes() (list []slog.Attr) {
	add := func(name, value string) {
		if value != "" {
			list = append(list, slog.String(name, cut(value, maxAttribute)))
		}
	}
	number := func(name string, n int64) {
		if n != absent {
			list = append(list, slog.Int64(name, n))
		}
	}
	yes := func(name string, is bool) {
		if is {
			list = append(list, slog.Bool(name, is))
		}
	}
	number("message_id", i.MessageID)
	if i.Response != 0 {
		add("error", i.Response.String())
	}
	number("internal_code", i.InternalCode)
	add("entity", i.Identity)
	add("scheme", i.Scheme)
	add("master_token", i.MasterToken.String())
	list = append(list, slog.Bool("encrypted", i.Encrypted), slog.Bool("authenticated", i.Authenticated))
	number("non_replayable_id", i.NonReplayableID)
	yes("renewable", i.Renewable)
	yes("handshake", i.Handshake)
	add("key_requests", strings.Join(i.KeyRequests, ","))
	add("key_response", i.KeyResponse)
	add("issued_master_token", i.Issued.String())
	add("user_scheme", i.UserScheme)
	number("user_id_token", i.UserIDToken)
	add("service_tokens", strings.Join(i.ServiceTokens, ","))
	add("peer_master_token", i.PeerMasterToken.String())
	number("peer_user_id_token", i.PeerUserIDToken)
	add("peer_service_tokens", strings.Join(i.PeerServiceTokens, ","))
	add("compression", strings.Join(i.Compression, ","))
	add("languages", strings.Join(i.Languages, ","))
	return list
}

// LogValue returns the members that the header has.
func (i HeaderInfo) LogValue() slog.Value {
	return slog.GroupValue(append([]slog.Attr{slog.Bool("sent", i.Sent)}, i.attributes()...)...)
}

// String returns them on one line, with unprintable characters escaped.
func (i HeaderInfo) String() string {
	words := []string{"received"}
	if i.Sent {
		words[0] = "sent"
	}
	for _, a := range i.attributes() {
		words = append(words, a.Key+"="+strings.ReplaceAll(safetext.String(a.Value.String()), " ", `\u0020`))
	}
	return strings.Join(words, " ")
}
