package failurelog_test

import (
	"context"
	"log"
	"net/http"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A client reports crypto failures to its server automatically.
func ExampleReporter() {
	reporter, err := failurelog.Start(failurelog.Config{
		Identity:  "camera-1",
		Transport: &mslhttp.Transport{URL: "http://127.0.0.1:8080/failures"},
		Version:   "v1.2.3",
		Spool:     "/var/lib/camera/failures",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer reporter.Close()

	client := &msl.Client{ /* with keys in an HSM */ }
	response, err := client.Do(context.Background(), &msl.Request{Encrypted: true, Authenticated: true})
	reporter.Observe(err)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
}

// A server keeps the reports in a file, and accepts them only from registered entities.
func ExampleHandler() {
	reports, err := failurelog.OpenLog("/var/log/msl/failures.jsonl", failurelog.Rotation{})
	if err != nil {
		log.Fatal(err)
	}
	defer reports.Close()
	registered := func(_ context.Context, identity string) (bool, error) { return identity == "camera-1", nil }
	http.Handle("/failures", &failurelog.Handler{Log: reports, Allow: registered})
}
