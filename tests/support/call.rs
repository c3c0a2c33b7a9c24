//! Helpers to build requests and to check replies.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tollgate::http::context::Peer;

/// The boundary of the multipart bodies made here.
pub(crate) const BOUNDARY: &str = "------------------------d74496d66958873e";

/// One request. Nothing is checked, so tests can send anything.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    peer: IpAddr,
}

impl Call {
    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            peer: Ipv4Addr::LOCALHOST.into(),
        }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    /// Sets the peer's address, which is 127.0.0.1 by default. Only for calls that do not use TCP.
    pub(crate) fn from(mut self, peer: &str) -> Self {
        self.peer = peer.parse().expect("the test gives an address");
        self
    }

    /// Adds a header. The same name twice makes two headers.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("the test gives a header's name");
        let value = HeaderValue::from_bytes(value.as_ref()).expect("the test gives what a header can carry");
        self.headers.append(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// The same call on another path.
    pub(crate) fn to(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    /// HTTP Basic as in RFC 6749 2.3.1: both values are form-encoded.
    pub(crate) fn basic(self, client_id: &str, secret: &str) -> Self {
        let inside = format!("{}:{}", form_encoded(client_id), form_encoded(secret));
        self.header("authorization", format!("Basic {}", STANDARD.encode(inside)))
    }

    /// A body, with or without a content type.
    pub(crate) fn body(mut self, content_type: Option<&str>, body: impl Into<Bytes>) -> Self {
        self.headers.remove(header::CONTENT_TYPE);
        self.body = body.into();
        match content_type {
            Some(label) => self.header("content-type", label),
            None => self,
        }
    }

    pub(crate) fn form(self, fields: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", form_encoded(name), form_encoded(value)))
            .collect();
        self.body(Some("application/x-www-form-urlencoded"), pairs.join("&"))
    }

    /// A JSON body with these fields in this order. Names may repeat.
    pub(crate) fn json(self, fields: &[(&str, &str)]) -> Self {
        self.body(Some("application/json"), json_object(fields))
    }

    pub(crate) fn multipart(self, fields: &[(&str, &str)]) -> Self {
        let label = format!("multipart/form-data; boundary={BOUNDARY}");
        self.body(Some(&label), multipart_body(fields))
    }

    pub(crate) fn into_request(self) -> Request<Body> {
        let mut request =
            Request::builder().method(self.method).uri(self.path).extension(Peer::client(self.peer));
        if let Some(headers) = request.headers_mut() {
            *headers = self.headers;
        }
        request.body(Body::from(self.body)).expect("the test gives a path that is a URI")
    }
}

fn form_encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(crate) fn json_object(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}: {}", Value::from(*name), Value::from(*value)))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}

pub(crate) fn multipart_body(fields: &[(&str, &str)]) -> String {
    let part = |(name, value): &(&str, &str)| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts: String = fields.iter().map(part).collect();
    format!("{parts}--{BOUNDARY}--\r\n")
}

/// An issued pair of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: not JSON ({error}): {}", self.status, self.text()))
    }

    /// A header's value. If the header is there several times, all values, separated by commas.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        (!values.is_empty()).then(|| String::from_utf8_lossy(&values.join(&b", "[..])).into_owned())
    }

    /// The pair of tokens in a 200.
    #[track_caller]
    pub(crate) fn tokens(&self) -> Tokens {
        assert_eq!(self.status, 200, "{}", self.text());
        let json = self.json();
        let token = |name: &str| json[name].as_str().map(str::to_owned);
        match (token("access_token"), token("refresh_token")) {
            (Some(access), Some(refresh)) => Tokens { access, refresh },
            _ => panic!("no pair in {json}"),
        }
    }

    /// Checks the status and the error code, and returns the description.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, error: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        assert_eq!(json["error"], error, "{json}");
        json["error_description"].as_str().expect("every error has a description").to_owned()
    }

    /// The body of an error without its request id. It must be equal for different causes.
    #[track_caller]
    pub(crate) fn text_without_id(&self) -> String {
        let id = self.header("x-request-id").expect("every reply has an id");
        self.text().replace(&id, "ID")
    }
}
