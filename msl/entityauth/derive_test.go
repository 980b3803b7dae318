package entityauth

import (
	"encoding/hex"
	"testing"
)

func TestDeriveWrappingKey(t *testing.T) {
	encryption, _ := hex.DecodeString("dbd68ac676bfba6641ca6a4c771053ac")
	mac, _ := hex.DecodeString("93edd1ddb772cfce217931265dbdb39c2bcdeeae1ba45d7972a1ba354e9a38c9")
	const want = "26f9729eb42211d3f2ffed9bf07fda9b"
	if got := hex.EncodeToString(DeriveWrappingKey(encryption, mac)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
