// golang.org/x/oauth2: grant and refresh by the library, from the metadata document alone; introspection and
// revocation, which it leaves to its users, by plain requests through the client that it makes.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// metadata is what is needed of RFC 8414's document.
type metadata struct {
	Issuer                string `json:"issuer"`
	TokenEndpoint         string `json:"token_endpoint"`
	IntrospectionEndpoint string `json:"introspection_endpoint"`
	RevocationEndpoint    string `json:"revocation_endpoint"`
}

// withKey adds the API key to every call: the library lets the HTTP client be chosen.
type withKey struct{ key string }

func (transport withKey) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("X-API-KEY", transport.key)
	return http.DefaultTransport.RoundTrip(request)
}

// asker is who introspects and revokes.
type asker struct {
	client       *http.Client
	authenticate func(http.Header, url.Values)
}

func (asker asker) post(endpoint, token, hint string) (map[string]interface{}, error) {
	fields, headers := url.Values{"token": {token}, "token_type_hint": {hint}}, http.Header{}
	asker.authenticate(headers, fields)
	request, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header = headers
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := asker.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", endpoint, response.Status)
	}
	answer := map[string]interface{}{}
	if response.ContentLength == 0 {
		return answer, nil
	}
	return answer, json.NewDecoder(response.Body).Decode(&answer)
}

func discover(issuer string) (found metadata, err error) {
	response, err := http.Get(issuer + "/.well-known/oauth-authorization-server")
	if err != nil {
		return found, err
	}
	defer response.Body.Close()
	if err = json.NewDecoder(response.Body).Decode(&found); err == nil && found.Issuer != issuer {
		err = fmt.Errorf("the issuer is %q", found.Issuer)
	}
	return found, err
}

func basic(id, secret string) func(http.Header, url.Values) {
	pair := url.QueryEscape(id) + ":" + url.QueryEscape(secret)
	return func(headers http.Header, _ url.Values) {
		headers.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	}
}

func newAsker(method, id, secret string, client *http.Client) (asker, oauth2.AuthStyle, error) {
	token := os.Getenv("SERVICE_TOKEN")
	switch method {
	case "client_secret_basic":
		return asker{client, basic(id, secret)}, oauth2.AuthStyleInHeader, nil
	case "client_secret_post":
		return asker{client, func(_ http.Header, fields url.Values) {
			fields.Set("client_id", id)
			fields.Set("client_secret", secret)
		}}, oauth2.AuthStyleInParams, nil
	case "service_token_basic":
		return asker{http.DefaultClient, basic(os.Getenv("SERVICE_ID"), token)}, oauth2.AuthStyleAutoDetect, nil
	case "service_token_bearer":
		// The library's own way of sending a token.
		source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})
		service := oauth2.NewClient(context.Background(), source)
		return asker{service, func(http.Header, url.Values) {}}, oauth2.AuthStyleAutoDetect, nil
	}
	return asker{}, 0, fmt.Errorf("no such method: %q", method)
}

func isActive(asker asker, found metadata, token, hint string) (bool, error) {
	answer, err := asker.post(found.IntrospectionEndpoint, token, hint)
	if err == nil && answer["active"] == false && len(answer) != 1 {
		err = fmt.Errorf("an inactive token has more to it: %v", answer)
	}
	return answer["active"] == true, err
}

// life takes a session from its grant to the refusal after its end.
func life() error {
	id, secret := os.Getenv("CLIENT_ID"), os.Getenv("CLIENT_SECRET")
	found, err := discover(os.Getenv("ISSUER"))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: withKey{os.Getenv("API_KEY")}}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	asker, style, err := newAsker(os.Getenv("AUTH_METHOD"), id, secret, client)
	if err != nil {
		return err
	}

	grant := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: found.TokenEndpoint, AuthStyle: style}
	first, err := grant.Token(ctx)
	if err != nil {
		return err
	}
	if !first.Valid() || first.Type() != "Bearer" || time.Until(first.Expiry) > time.Hour {
		return fmt.Errorf("not a token of an hour: %s until %s", first.Type(), first.Expiry)
	}

	config := oauth2.Config{ClientID: id, ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: found.TokenEndpoint, AuthStyle: style}}
	refresh := func(token string) (*oauth2.Token, error) {
		return config.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
	}
	second, err := refresh(first.RefreshToken)
	if err != nil {
		return err
	}
	if second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken {
		return errors.New("the refresh gave nothing new")
	}

	// To a service a refresh token is inactive unless it says that it asks about one.
	hints := map[string]string{
		first.AccessToken: "access_token", second.AccessToken: "access_token", second.RefreshToken: "refresh_token",
	}
	for token, hint := range hints {
		if active, err := isActive(asker, found, token, hint); err != nil || !active {
			return fmt.Errorf("not active before its revocation: %v", err)
		}
	}
	if _, err := asker.post(found.RevocationEndpoint, second.AccessToken, "access_token"); err != nil {
		return err
	}
	for token, hint := range hints {
		if active, err := isActive(asker, found, token, hint); err != nil || active {
			return fmt.Errorf("active after its revocation: %v", err)
		}
	}
	var refused *oauth2.RetrieveError
	if _, err := refresh(second.RefreshToken); !errors.As(err, &refused) || !strings.Contains(string(refused.Body), "invalid_grant") {
		return fmt.Errorf("a revoked refresh token: %v", err)
	}
	return nil
}

func main() {
	if err := life(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
