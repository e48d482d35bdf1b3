//! What the trainer keeps, over REST: runs, checkpoints, sessions.

use axum::Router;
use axum::extract::{Path, RawQuery, Request as HttpRequest, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{delete, get, post, put};
use serde_json::json;
use tinsmith_wire::SetTtlRequest;

use super::body::ok;
use super::{Reply, Server};
use crate::checkpoint::{Reference, Visibility};
use crate::hub::Page;
use crate::{Error, Result};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/training_runs", get(training_runs))
        .route("/training_runs/{id}", get(training_run))
        .route("/training_runs/{id}/checkpoints", get(checkpoints))
        .route("/models/{id}/checkpoints", get(checkpoints))
        .route("/checkpoints", get(all_checkpoints))
        .route("/training_runs/{id}/checkpoints/{kind}/{name}", delete(delete_checkpoint))
        .route("/training_runs/{id}/checkpoints/{kind}/{name}/ttl", put(set_ttl))
        .route(
            "/training_runs/{id}/checkpoints/{kind}/{name}/publish",
            post(publish).delete(unpublish),
        )
        .route("/training_runs/{id}/checkpoints/{kind}/{name}/archive", get(archive))
        .route("/training_runs/{id}/checkpoints/{kind}/{name}/archive.tar", get(archive_file))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", get(session))
}

/// Longest page of a listing.
const MAX_PAGE: usize = 1000;

/// The part of a listing that `limit` and `offset` of a query ask for.
fn page(query: Option<&str>, default: usize) -> Result<Page> {
    let number = |name: &'static str, default: usize| {
        let fields = query.unwrap_or_default().split('&');
        let mut values = fields.filter_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        values.next().map_or(Ok(default), |value| {
            let problem = || Error::field(name, format!("`{value}` is no number"));
            value.parse().map_err(|_| problem())
        })
    };
    let page = Page { offset: number("offset", 0)?, limit: number("limit", default)? };
    match (1..=MAX_PAGE).contains(&page.limit) {
        true => Ok(page),
        false => {
            Err(Error::field("limit", format!("{} is not between 1 and {MAX_PAGE}", page.limit)))
        }
    }
}

async fn training_runs(State(server): State<Server>, RawQuery(query): RawQuery) -> Reply {
    ok(&server.hub.training_runs(page(query.as_deref(), 20)?)?)
}

async fn training_run(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    ok(&server.hub.training_run(&id)?)
}

async fn checkpoints(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    ok(&server.hub.checkpoints(&id)?)
}

async fn all_checkpoints(State(server): State<Server>, RawQuery(query): RawQuery) -> Reply {
    ok(&server.hub.all_checkpoints(page(query.as_deref(), 100)?)?)
}

/// Run, kind and name of a checkpoint.
type At = Path<(String, String, String)>;

fn reference(Path((run, kind, name)): &At) -> Result<Reference> {
    format!("tinker://{run}/{kind}/{name}").parse()
}

async fn delete_checkpoint(State(server): State<Server>, at: At) -> Reply {
    server.hub.delete_checkpoint(&reference(&at)?)?;
    ok(&json!({}))
}

async fn set_ttl(State(server): State<Server>, at: At, request: HttpRequest) -> Reply {
    let request = server.read::<SetTtlRequest>(request).await?;
    server.hub.set_ttl(&reference(&at)?, request.body)?;
    ok(&json!({}))
}

async fn publish(State(server): State<Server>, at: At) -> Reply {
    let at = reference(&at)?;
    server.hub.set_visibility(&at, Visibility::Public)?;
    ok(&json!({}))
}

async fn unpublish(State(server): State<Server>, at: At) -> Reply {
    let at = reference(&at)?;
    server.hub.set_visibility(&at, Visibility::Private)?;
    ok(&json!({}))
}

/// Where to download a checkpoint: from here.
async fn archive(State(server): State<Server>, at: At) -> Reply {
    server.hub.checkpoint(&reference(&at)?)?;
    let Path((run, kind, name)) = at;
    Ok(Redirect::to(&format!("/api/v1/training_runs/{run}/checkpoints/{kind}/{name}/archive.tar"))
        .into_response())
}

async fn archive_file(State(server): State<Server>, at: At) -> Reply {
    let at = reference(&at)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.tar\"", at.name)),
    ];
    Ok((headers, server.hub.archive(&at)?).into_response())
}

async fn sessions(State(server): State<Server>) -> Reply {
    ok(&server.hub.sessions())
}

async fn session(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    ok(&server.hub.session_info(&id)?)
}
