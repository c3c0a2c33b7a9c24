package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Tollgate returns an access token that is valid for at least another minute.
type Tollgate struct {
	URL, Key, ClientID, ClientSecret string

	mutex           sync.Mutex
	access, refresh string
	renewAt         time.Time
}

func (t *Tollgate) AccessToken() (string, error) {
	t.mutex.Lock() // one renewal at a time
	defer t.mutex.Unlock()
	if time.Now().Before(t.renewAt) {
		return t.access, nil
	}
	path := "/api/authorize"
	if t.refresh != "" {
		path = "/api/refresh_token"
	}
	refused, err := t.ask(path)
	if refused == "invalid_grant" && t.refresh != "" {
		t.refresh = "" // the session is over: start a new one
		refused, err = t.ask("/api/authorize")
	}
	if err == nil && refused != "" {
		err = fmt.Errorf("no token: %s", refused)
	}
	return t.access, err
}

func (t *Tollgate) ask(path string) (refused string, err error) {
	fields := url.Values{"client_id": {t.ClientID}, "client_secret": {t.ClientSecret}}
	if t.refresh != "" {
		fields.Set("refresh_token", t.refresh)
	}
	request, err := http.NewRequest("POST", t.URL+path, strings.NewReader(fields.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("X-API-KEY", t.Key)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var pair struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Expires int    `json:"expires_in"`
		Error   string `json:"error"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&pair); err != nil || pair.Error != "" {
		return pair.Error, err
	}
	t.access, t.refresh = pair.Access, pair.Refresh
	t.renewAt = time.Now().Add(time.Duration(pair.Expires-60) * time.Second)
	return "", nil
}

func main() {
	tollgate := &Tollgate{
		URL: os.Getenv("TOLLGATE_URL"), Key: os.Getenv("TOLLGATE_KEY"),
		ClientID: os.Getenv("TOLLGATE_CLIENT_ID"), ClientSecret: os.Getenv("TOLLGATE_CLIENT_SECRET"),
	}
	token, err := tollgate.AccessToken()
	if err != nil {
		log.Fatal(err)
	}
	request, _ := http.NewRequest("GET", os.Getenv("API_URL"), nil)
	request.Header.Set("X-API-KEY", tollgate.Key)
	request.Header.Set("ACCESS-TOKEN", token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != 200 {
		log.Fatal(answer, err)
	}
}
