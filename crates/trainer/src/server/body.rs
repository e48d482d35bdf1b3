//! Reading request bodies, in either dialect, and writing replies.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::{self, Body as HttpBody, Bytes};
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tinsmith_wire::{ErrorBody, PassRequest, json, proto};

use super::{Reply, Server};
use crate::hub::Request;
use crate::outcome::{Body, Format};
use crate::{Error, Result};

/// For a reply to a request whose body may not have been read: what is left of it keeps the
/// connection from being used again, and a client that is not told so sends its next request into
/// the end of this one.
pub(super) const LAST: [(HeaderName, &str); 1] = [(header::CONNECTION, "close")];

const JSON: &str = "application/json";
const PROTO: &str = "application/x-protobuf";

impl Server {
    /// A JSON body.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        request: HttpRequest,
    ) -> Result<Request<T>> {
        let (format, bytes) = self.bytes(request).await?;
        match format {
            Format::Json => Ok(Request { body: json::from_slice(&bytes)?, digest: digest(&bytes) }),
            Format::Proto => Err(Error::MediaType {
                found: PROTO.to_owned(),
                wanted: "this request is JSON in every dialect, send `application/json`",
            }),
        }
    }

    /// The body of a pass, JSON or protobuf by its `Content-Type`.
    pub(super) async fn read_pass(
        &self,
        request: HttpRequest,
    ) -> Result<Request<PassRequest<'static>>> {
        let (format, bytes) = self.bytes(request).await?;
        Ok(Request {
            digest: digest(&bytes),
            body: match format {
                Format::Json => json::from_slice(&bytes)?,
                Format::Proto => proto::from_vec(bytes.into())?,
            },
        })
    }

    async fn bytes(&self, request: HttpRequest) -> Result<(Format, Bytes)> {
        let headers = request.headers();
        let format = match header(headers, header::CONTENT_TYPE).unwrap_or(JSON) {
            kind if kind.starts_with(JSON) => Format::Json,
            kind if kind.starts_with(PROTO) => Format::Proto,
            kind => {
                return Err(Error::MediaType {
                    found: kind.to_owned(),
                    wanted: "send `application/json` or, to forward_backward, `application/x-protobuf`",
                });
            }
        };
        if let Some(encoding) = header(headers, header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(Error::MediaType {
                found: encoding.to_owned(),
                wanted: "this trainer's client config asks for plain bodies, send no Content-Encoding",
            });
        }
        let limit = self.body_limit;
        let bytes = body::to_bytes(request.into_body(), limit).await;
        Ok((format, bytes.map_err(|_| Error::TooLarge { limit })?))
    }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The form in which a result is wanted.
pub(super) fn accepted(headers: &HeaderMap) -> Format {
    match header(headers, header::ACCEPT) {
        Some(accept) if accept.contains(PROTO) => Format::Proto,
        _ => Format::Json,
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut digest = DefaultHasher::new();
    bytes.hash(&mut digest);
    digest.finish()
}

/// A JSON reply.
pub(super) fn ok(value: &impl Serialize) -> Reply {
    Ok(Body::json(value)?.into_response())
}

/// The body of an error.
pub(super) fn detail(message: impl Into<String>) -> Response {
    Body::json(&ErrorBody::new(message)).map_or_else(|_| Response::default(), Body::into_response)
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        let kind = match self.format {
            Format::Json => JSON,
            Format::Proto => PROTO,
        };
        ([(header::CONTENT_TYPE, kind)], HttpBody::from(self.bytes)).into_response()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = detail(self.to_string());
        match self {
            Error::TokenSpent => {
                let hint = [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
                (status, hint, LAST, body).into_response()
            }
            Error::Unauthorized | Error::TooLarge { .. } | Error::MediaType { .. } => {
                (status, LAST, body).into_response()
            }
            _ => (status, body).into_response(),
        }
    }
}
