package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A codeRow is what a user needs to know about an error code.
type codeRow struct {
	Code     int    `json:"code"`
	Internal int    `json:"internalcode"`
	Name     string `json:"name"`
	Response string `json:"response"`
	Meaning  string `json:"meaning"`
	Next     string `json:"next"`
}

func errorsCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "errors [CODE]",
		Short: "Explain an MSL error code, or list them",
		Long: `Explains an MSL error: its name, its meaning, what the peer is asked to do, and
what you can do. CODE is the number in a log, such as 6039, or the internalcode of a
message, such as 106039. Without one, it lists all errors.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			codes := msl.Codes()
			if len(args) == 1 {
				code, err := parseCode(args[0])
				if err != nil {
					return err
				}
				codes = []msl.Code{code}
			}
			rows := make([]codeRow, len(codes))
			for i, c := range codes {
				rows[i] = codeRow{int(c), c.Internal(), c.Name(), c.Response().String(), c.Text(), nextStep(c)}
			}
			if len(args) == 1 && !asJSON {
				r := rows[0]
				_, err := fmt.Fprintf(p.stdout, "%d %s\n  means     %s\n  on wire   internalcode %d, errorcode %d %s\n  next      %s\n",
					r.Code, r.Name, r.Meaning, r.Internal, int(codes[0].Response()), r.Response, r.Next)
				return err
			}
			return list(p.stdout, asJSON, rows, "CODE\tNAME\tRESPONSE\tMEANING", func(r codeRow) []any {
				return []any{r.Code, r.Name, r.Response, r.Meaning}
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func parseCode(text string) (msl.Code, error) {
	n, err := strconv.Atoi(text)
	if n >= 100000 {
		n -= 100000
	}
	if code := msl.Code(n); err == nil && code.Name() != "" {
		return code, nil
	}
	return 0, exit.Usagef("%q is not an MSL error; msl-hsm errors lists them all", text)
}

// nextStep returns what an operator should do about an error, based on the action it
// asks of the peer.
func nextStep(c msl.Code) string {
	switch c {
	case msl.ErrEntityNotFound, msl.ErrRSAPublicKeyNotFound, msl.ErrECCPublicKeyNotFound, msl.ErrIncorrectEntityAuthData:
		return "register the entity with msl-hsm entity add, with the scheme that it uses"
	case msl.ErrEntityRevoked, msl.ErrMasterTokenIdentityRevoked:
		return "the entity was revoked: msl-hsm entity list; entity unrevoke takes it back"
	case msl.ErrKeyXFactoryNotFound, msl.ErrUnsupportedKeyXMechanism:
		return "offer a key exchange that the server has, or let its custody allow this one"
	case msl.ErrInternalException:
		return "see the server's log: its key store or state did not answer"
	}
	switch c.Response() {
	case msl.TransientFailure:
		return "try again later"
	case msl.EntityReauth:
		return "nothing: the client authenticates itself anew; if it comes back, check the server's issuer keys and clock"
	case msl.UserReauth:
		return "nothing: the client authenticates its user anew"
	case msl.KeyXRequired:
		return "nothing: the client comes back with a key exchange"
	case msl.EntityDataReauth:
		return "check the keys or the certificate of the entity, and that the server knows them"
	case msl.UserDataReauth:
		return "check the user and the password"
	case msl.Expired:
		return "nothing: the client renews its master token"
	case msl.Replayed:
		return "nothing: the client sends the message again with a new id"
	}
	return "the message is at fault, or was changed on its way: look at it with msl-hsm inspect"
}
