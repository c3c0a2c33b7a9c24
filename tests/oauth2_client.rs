//! The `oauth2` crate as a client: a session's whole life, from the metadata document alone, by every
//! advertised way of authenticating. (Clients in other languages: tests/clients.)

use std::convert::Infallible;

use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenType};
use oauth2::{
    AccessToken, AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    IntrospectionUrl, RefreshToken, RequestTokenError, RevocationUrl, StandardRevocableToken, TokenResponse,
    TokenUrl,
};
use serde_json::json;

use crate::admin::Admin;
use crate::support::{Call, Merchant, TestApp, each_engine_with};

/// The library revokes tokens only over HTTPS.
const ISSUER: &str = "https://auth.example";

type Client = BasicClient<EndpointNotSet, EndpointNotSet, EndpointSet, EndpointSet, EndpointSet>;

/// A client that knows its endpoints from where RFC 8414 3 says they are.
async fn discovered(app: &TestApp, id: &str, secret: &str, auth: AuthType) -> Client {
    let reply = app.send(Call::get("/.well-known/oauth-authorization-server")).await;
    let metadata = reply.json();
    assert_eq!(metadata["issuer"], ISSUER);
    let endpoint = |name: &str| metadata[name].as_str().expect("the endpoint is in the document").to_owned();
    BasicClient::new(ClientId::new(id.to_owned()))
        .set_client_secret(ClientSecret::new(secret.to_owned()))
        .set_auth_type(auth)
        .set_token_uri(TokenUrl::new(endpoint("token_endpoint")).expect("a URL"))
        .set_introspection_url(IntrospectionUrl::new(endpoint("introspection_endpoint")).expect("a URL"))
        .set_revocation_url(RevocationUrl::new(endpoint("revocation_endpoint")).expect("a URL"))
}

/// The HTTP client of the library: the router, with the key that every call carries, or none.
async fn http(app: &TestApp, key: Option<&str>, request: HttpRequest) -> Result<HttpResponse, Infallible> {
    let (parts, body) = request.into_parts();
    assert_eq!(parts.uri.authority().map(|authority| authority.as_str()), Some("auth.example"));
    let mut call = Call::new(parts.method, parts.uri.path()).body(None, body);
    for (name, value) in &parts.headers {
        call = call.header(name.as_str(), value);
    }
    if let Some(key) = key {
        call = call.key(key);
    }
    let reply = app.send(call).await;
    let mut response = HttpResponse::new(reply.body.to_vec());
    *response.status_mut() = reply.status.try_into().expect("a status");
    *response.headers_mut() = reply.headers;
    Ok(response)
}

/// Grant, refresh, introspection, revocation, and the refusal after it; `service` introspects if it is
/// there, else the client itself.
async fn live(app: &TestApp, merchant: &Merchant, auth: AuthType, service: Option<&Client>) {
    let client = &discovered(app, &merchant.client_id, &merchant.client_secret, auth).await;
    let own = |request| http(app, Some(&merchant.key), request);
    let keyless = |request| http(app, None, request);
    let is_active = async |token: &AccessToken| {
        let reply = match service {
            Some(service) => service.introspect(token).request_async(&keyless).await,
            None => client.introspect(token).request_async(&own).await,
        };
        let reply = reply.expect("introspection answers");
        let told = oauth2::TokenIntrospectionResponse::client_id(&reply).map(|id| id.as_str().to_owned());
        assert_eq!(
            told,
            oauth2::TokenIntrospectionResponse::active(&reply).then(|| merchant.client_id.clone())
        );
        oauth2::TokenIntrospectionResponse::active(&reply)
    };
    let refresh = async |token: &RefreshToken| client.exchange_refresh_token(token).request_async(&own).await;

    let first = client.exchange_client_credentials().request_async(&own).await.expect("a pair is granted");
    assert_eq!(first.token_type(), &BasicTokenType::Bearer);
    assert_eq!(first.expires_in().map(|left| left.as_secs()), Some(3600));
    let second = refresh(first.refresh_token().expect("a pair has two")).await.expect("the pair is renewed");
    assert_ne!(first.access_token().secret(), second.access_token().secret());
    let renewed = second.refresh_token().expect("a pair has two").clone();
    assert!(is_active(first.access_token()).await);
    assert!(is_active(second.access_token()).await);

    let ended = StandardRevocableToken::from(renewed.clone());
    client.revoke_token(ended).expect("HTTPS").request_async(&own).await.expect("it is revoked");
    assert!(!is_active(first.access_token()).await);
    assert!(!is_active(second.access_token()).await);
    match refresh(&renewed).await {
        Err(RequestTokenError::ServerResponse(reply)) => {
            assert_eq!(reply.error(), &BasicErrorResponseType::InvalidGrant);
        }
        other => panic!("a revoked token was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn the_oauth2_crate_takes_a_session_from_grant_to_revocation() {
    each_engine_with(
        |settings| settings.server.issuer = ISSUER.to_owned(),
        async |app| {
            let merchant = app.merchant().await;
            live(&app, &merchant, AuthType::BasicAuth, None).await;
            live(&app, &merchant, AuthType::RequestBody, None).await;
        },
    )
    .await;
}

#[tokio::test]
async fn the_oauth2_crate_introspects_with_a_service_token_as_its_credentials() {
    each_engine_with(
        |settings| settings.server.issuer = ISSUER.to_owned(),
        async |app| {
            let new = json!({ "name": "Gateway", "role": "operator", "permissions": ["introspect"] });
            let made = Admin::operator(&app).await.post("/tokens", new).await.json();
            let said = |name: &str| made[name].as_str().expect("a token is made").to_owned();
            let service = discovered(&app, &said("id"), &said("token"), AuthType::BasicAuth).await;
            for merchant in [app.merchant().await, app.merchant().await] {
                live(&app, &merchant, AuthType::BasicAuth, Some(&service)).await;
            }
        },
    )
    .await;
}
