# Needs curl and jq.
answer=$(curl --silent --show-error --fail-with-body "$TOLLGATE_URL/api/authorize" \
  --header "X-API-KEY: $TOLLGATE_KEY" \
  --data-urlencode "client_id=$TOLLGATE_CLIENT_ID" \
  --data-urlencode "client_secret=$TOLLGATE_CLIENT_SECRET") || exit 1
refresh_token=$(jq -r .refresh_token <<<"$answer")

# Renew before the hour is over, always with the newest refresh token:
answer=$(curl --silent --show-error --fail-with-body "$TOLLGATE_URL/api/refresh_token" \
  --header "X-API-KEY: $TOLLGATE_KEY" \
  --data-urlencode "client_id=$TOLLGATE_CLIENT_ID" \
  --data-urlencode "client_secret=$TOLLGATE_CLIENT_SECRET" \
  --data-urlencode "refresh_token=$refresh_token") || exit 1
access_token=$(jq -r .access_token <<<"$answer")

# Send both headers with every other call to the platform.
curl --silent --show-error --fail-with-body "$API_URL" \
  --header "X-API-KEY: $TOLLGATE_KEY" --header "ACCESS-TOKEN: $access_token"
